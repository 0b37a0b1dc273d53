import { describe, expect, it } from 'vitest';
import { MessengerError } from '../../src/core/errors.js';
import type { Message } from '../../src/core/contracts/message.js';
import type { Subscriber } from '../../src/core/contracts/subscriber.js';
import { sleep } from '../../src/core/util/async.js';
import {
  subscriberTestSuite,
  type SubscriberFeatures,
  type SubscriberHarness,
  type SubscriberSetup,
} from '../../src/testing/conformance/subscriber-suite.js';

/** What is broken on purpose. */
type Fault =
  'none' | 'acknowledges early' | 'forgets failures' | 'hides errors' | 'does not wait at stop' | 'ends at an error';

const FEATURES: SubscriberFeatures = {
  redelivers: true,
  ordered: true,
  concurrency: false,
  extendsWhileHandling: true,
  stopTimeout: false,
};

/** The simplest possible subscriber: it handles one message at a time, from an array. */
function create(fault: Fault, refuses: boolean): (setup: SubscriberSetup) => Promise<SubscriberHarness> {
  return async ({ errorLogger, concurrency, stopTimeout }) => {
    await Promise.resolve();
    if (refuses && (concurrency ?? stopTimeout) !== undefined) throw new MessengerError('UNSUPPORTED', 'one at a time');
    const queue: Message[] = [];
    let broken = false;
    const step = async (handle: (message: Message) => Promise<void> | void): Promise<void> => {
      if (broken) throw new Error('the broker is broken');
      const [message] = queue;
      if (message === undefined) return;
      if (fault === 'acknowledges early') queue.shift();
      try {
        await handle(message);
      } catch (error) {
        if (fault === 'forgets failures') queue.shift();
        throw error;
      }
      if (fault !== 'acknowledges early') queue.shift();
    };
    const subscriber: Subscriber = {
      async subscribe({ handler }, { signal }) {
        while (!signal.aborted) {
          const work = step((message) => handler(message, { signal: new AbortController().signal }));
          try {
            await (fault === 'does not wait at stop' ? Promise.race([work, sleep(60_000, signal)]) : work);
          } catch (error) {
            if (fault !== 'hides errors') errorLogger.error(error as Error);
            if (fault === 'ends at an error') return;
          }
          await sleep(1, signal);
        }
      },
    };
    return {
      subscriber,
      timeout: 20,
      publish: (messages) => Promise.resolve(void queue.push(...messages)),
      pending: () => Promise.resolve(queue.length),
      breakBroker: () => Promise.resolve(void (broken = true)),
      close: () => Promise.resolve(),
    };
  };
}

/** The names of the tests that fail, among those that `only` names. */
async function failures(make: ReturnType<typeof create>, only?: string): Promise<string[]> {
  const tests: [string, () => Promise<void>][] = [];
  subscriberTestSuite({
    it: (name, test) => tests.push([name, test]),
    create: make,
    features: FEATURES,
    patience: 1_000,
  });
  const failed: string[] = [];
  for (const [name, test] of tests) {
    if (only === undefined || name === only) await test().catch(() => failed.push(name));
  }
  return failed;
}

describe('the subscriber suite', () => {
  it('passes a subscriber that keeps its promises', async () => {
    expect(await failures(create('none', true))).toEqual([]);
  });

  it.each<[Fault, string]>([
    ['acknowledges early', 'does not acknowledge a message before its handler has succeeded'],
    ['does not wait at stop', 'waits for running handlers when it stops, and acknowledges their messages'],
  ])('fails one that %s', async (fault, test) => {
    expect(await failures(create(fault, true), test)).toEqual([test]);
  });

  it.each<[Fault, string]>([
    ['forgets failures', 'logs the error of a handler, and the message is delivered again'],
    ['hides errors', 'logs the error of a handler, and the message is delivered again'],
    ['ends at an error', 'logs the errors of the broker, and continues until it is stopped'],
  ])('fails one that %s, when its patience ends', async (fault, test) => {
    expect(await failures(create(fault, true), test)).toEqual([test]);
  });

  it('fails a subscriber that accepts an option that it declares unsupported', async () => {
    expect(await failures(create('none', false), 'refuses concurrency')).toEqual(['refuses concurrency']);
    expect(await failures(create('none', false), 'refuses stopTimeout')).toEqual(['refuses stopTimeout']);
  });
});

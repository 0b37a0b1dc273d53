/**
 * What every subscriber must do, as tests for any runner.
 *
 * @module
 */
import { newMessage, type Message } from '../core/message.js';
import type { Handler, Subscriber, SubscriberOptions } from '../core/subscriber.js';
import { assert, assertEqual, gate, rejection, until } from './assert.js';

/** What a subscriber declares to be able to do. What it declares not to, it must refuse: the suite tests that. */
export interface SubscriberFeatures {
  /** A message whose handler failed comes again. False: it never does, and the suite waits to see none. */
  readonly redelivers: boolean;
  /** Messages of one key are handled one at a time and in order, also when one fails. False: not tested. */
  readonly ordered: boolean;
  /** It takes a bound on concurrent handlers. False: `create` with `concurrency` must reject. */
  readonly concurrency: boolean;
  /** A message stays this consumer's while its handler runs longer than the broker's timeout. False: not tested. */
  readonly extendsWhileHandling: boolean;
  /** It has a grace for handlers at stop. False: `create` with `stopTimeout` must reject. */
  readonly stopTimeout: boolean;
}

/** What the suite asks of a subscriber. */
export interface SubscriberSetup extends Required<SubscriberOptions> {
  /** Handlers at once. */
  readonly concurrency?: number;
  /** Milliseconds that a stop waits before it aborts the handlers' signal. */
  readonly stopTimeout?: number;
}

/** One subscriber over a place of its own in a broker. */
export interface SubscriberHarness {
  readonly subscriber: Subscriber;
  /** Puts messages into the broker, in this order. */
  publish(messages: readonly Message[]): Promise<void>;
  /** How many messages the broker still holds, those that are being handled included. */
  pending(): Promise<number>;
  /** Milliseconds after which the broker gives an unacknowledged message to somebody else: short, for tests. */
  readonly timeout: number;
  /** From now on nothing reaches the broker: its errors must go to the logger. */
  breakBroker(): Promise<void>;
  close(): Promise<void>;
}

/** What the suite needs. */
export interface SubscriberSuite {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** A new harness: called once per test. */
  readonly create: (setup: SubscriberSetup) => Promise<SubscriberHarness>;
  readonly features: SubscriberFeatures;
}

/** A subscription that runs, and what it saw. */
interface Running extends SubscriberHarness {
  readonly handled: Message[];
  readonly errors: Error[];
  /** Stops, and waits for the end. */
  stop(): Promise<void>;
  /** Whether `subscribe` has resolved. */
  ended(): boolean;
}

/**
 * Declares the tests of the contract `Subscriber`.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('my subscriber', () => subscriberTestSuite({ it, create, features }));
 * ```
 */
export function subscriberTestSuite({ it, create, features }: SubscriberSuite): void {
  const test = (
    name: string,
    handler: (message: Message, context: { signal: AbortSignal }, handled: readonly Message[]) => Promise<void> | void,
    body: (running: Running) => Promise<void>,
    setup: Omit<SubscriberSetup, 'errorLogger'> = {},
  ): void => {
    it(name, async () => {
      const errors: Error[] = [];
      const handled: Message[] = [];
      const harness = await create({ ...setup, errorLogger: { error: (error) => errors.push(error) } });
      const controller = new AbortController();
      let ended = false;
      const recording: Handler = (message, context) => {
        handled.push(message);
        return handler(message, context, handled);
      };
      const done = harness.subscriber
        .subscribe({ name: 'suite', handler: recording }, { signal: controller.signal })
        .finally(() => {
          ended = true;
        });
      const stop = (): Promise<void> => {
        controller.abort();
        return done;
      };
      try {
        await body({ ...harness, handled, errors, stop, ended: () => ended });
      } finally {
        await stop();
        await harness.close();
      }
    });
  };

  test(
    'hands over what was published and acknowledges it',
    () => undefined,
    async ({ publish, pending, handled, errors }) => {
      const messages = Array.from({ length: 25 }, (_, i) =>
        newMessage(`grüße ${String(i)}`, { key: `k${String(i)}`, metadata: { n: String(i) } }),
      );
      await publish(messages);
      await until(async () => (await pending()) === 0, 'every message is acknowledged');
      const view = (some: readonly Message[]): unknown =>
        some
          .map(({ id, payload, metadata }) => [id, payload, metadata])
          .sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1));
      assertEqual(view(handled), view(messages), 'messages handled');
      assertEqual(errors.map(String), [], 'errors');
    },
  );

  const open = gate();
  test(
    'does not acknowledge before the handler succeeded',
    () => open.opened,
    async ({ publish, pending, handled }) => {
      await publish([one()]);
      await until(() => handled.length === 1, 'the handler runs');
      assertEqual(await pending(), 1, 'messages that the broker holds while the handler runs');
      open.open();
      await until(async () => (await pending()) === 0, 'the message is acknowledged');
    },
  );

  test(
    features.redelivers
      ? 'logs the error of a handler, and the message comes again'
      : 'logs the error of a handler, and the message does not come again',
    (_, __, handled) => {
      if (handled.length === 1) throw new Error('the first time fails');
    },
    async ({ publish, pending, handled, errors, timeout }) => {
      const message = one();
      await publish([message]);
      await until(() => errors.some((error) => String(error).includes('the first time fails')), 'the error is logged');
      if (features.redelivers) {
        await until(() => handled.length === 2, 'the message comes again', timeout * 3 + 5_000);
        await until(async () => (await pending()) === 0, 'the message is acknowledged');
        assertEqual(
          handled.map(({ id }) => id),
          [message.id, message.id],
          'ids handled',
        );
      } else {
        assert(await never(() => handled.length > 1, timeout * 2), 'the message came again');
      }
    },
  );

  if (features.concurrency) {
    let running = 0;
    let most = 0;
    const enough = gate();
    test(
      'runs as many handlers as told, and no more',
      async () => {
        most = Math.max(most, ++running);
        await enough.opened;
        running -= 1;
      },
      async ({ publish, pending }) => {
        await publish(Array.from({ length: 12 }, () => one()));
        await until(() => running === 3, 'three handlers run');
        assert(await never(() => running > 3, 300), 'more than three handlers ran');
        enough.open();
        await until(async () => (await pending()) === 0, 'every message is acknowledged');
        assertEqual(most, 3, 'handlers at once');
      },
      { concurrency: 3 },
    );
  } else {
    refuses('concurrency', { concurrency: 3 });
  }

  if (features.ordered) {
    const failed = new Set<string>();
    let overlap = false;
    const active = new Set<string>();
    test(
      'handles messages of one key one at a time and in order, also when one fails',
      async (message) => {
        const key = message.key ?? '';
        overlap ||= active.has(key);
        active.add(key);
        await new Promise((resolve) => setTimeout(resolve, 5));
        active.delete(key);
        if (message.metadata['fails'] !== 'once' || failed.has(message.id)) return;
        failed.add(message.id);
        throw new Error('fails once');
      },
      async ({ publish, pending, handled, timeout }) => {
        const messages = Array.from({ length: 20 }, (_, i) =>
          newMessage(String(i), { key: `k${String(i % 4)}`, metadata: i === 6 ? { fails: 'once' } : {} }),
        );
        await publish(messages);
        await until(async () => (await pending()) === 0, 'every message is acknowledged', timeout * 3 + 10_000);
        assert(!overlap, 'two handlers of one key ran at once');
        for (let key = 0; key < 4; key++) {
          const ids = (some: readonly Message[]): string[] =>
            some.filter((message) => message.key === `k${String(key)}`).map(({ id }) => id);
          // The message that failed is handled twice in a row: nothing of its key comes between.
          const expected = ids(messages).flatMap((id) => (failed.has(id) ? [id, id] : [id]));
          assertEqual(ids(handled), expected, `order of key k${String(key)}`);
        }
      },
    );
  }

  if (features.extendsWhileHandling) {
    const long = gate();
    test(
      'keeps a message while its handler runs longer than the timeout of the broker',
      () => long.opened,
      async ({ publish, pending, handled, timeout }) => {
        await publish([one()]);
        await until(() => handled.length === 1, 'the handler runs');
        assert(await never(() => handled.length > 1, timeout * 2), 'the message came again while it was handled');
        long.open();
        await until(async () => (await pending()) === 0, 'the message is acknowledged');
        assertEqual(handled.length, 1, 'times handled');
      },
    );
  }

  const finish = gate();
  test(
    'waits at stop for the handlers that run, and acknowledges their messages',
    () => finish.opened,
    async ({ publish, pending, handled, stop, ended }) => {
      await publish([one()]);
      await until(() => handled.length === 1, 'the handler runs');
      const stopped = stop();
      assert(await never(ended, 200), 'subscribe resolved while a handler ran');
      finish.open();
      await stopped;
      assertEqual(await pending(), 0, 'messages that the broker holds');
    },
  );

  test(
    'stops promptly while it waits for messages, and is quiet about it',
    () => undefined,
    async ({ stop, errors }) => {
      const start = Date.now();
      await stop();
      assert(Date.now() - start < 3_000, 'stopping took longer than 3 s');
      assertEqual(errors.map(String), [], 'errors');
    },
  );

  if (features.stopTimeout) {
    test(
      'aborts at stop the signal of handlers that outstay the grace',
      (_, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            reject(new Error('handler saw the abort'));
          });
        }),
      async ({ publish, pending, handled, errors, stop }) => {
        await publish([one()]);
        await until(() => handled.length === 1, 'the handler runs');
        await stop();
        assert(
          errors.some((error) => String(error).includes('handler saw the abort')),
          'the signal was not aborted',
        );
        assertEqual(await pending(), 1, 'messages that the broker holds');
      },
      { stopTimeout: 100 },
    );
  } else {
    refuses('stopTimeout', { stopTimeout: 100 });
  }

  test(
    'logs the errors of the broker and goes on until it is stopped',
    () => undefined,
    async ({ publish, pending, breakBroker, errors, stop, ended }) => {
      await publish([one()]);
      await until(async () => (await pending()) === 0, 'a message is acknowledged');
      await breakBroker();
      await until(() => errors.length >= 2, 'the error is logged, more than once');
      assert(!ended(), 'subscribe ended');
      await stop();
    },
  );

  function refuses(option: string, setup: Omit<SubscriberSetup, 'errorLogger'>): void {
    it(`refuses ${option}`, async () => {
      await rejection(create({ ...setup, errorLogger: { error: () => undefined } }), `create with ${option}`);
    });
  }
}

let keys = 0;

/** A message with a key of its own, since some brokers need one. */
function one(): Message {
  return newMessage('one', { key: `own-${String(++keys)}` });
}

/** Whether a condition stays false for so many milliseconds. */
async function never(condition: () => boolean, milliseconds: number): Promise<boolean> {
  const end = Date.now() + milliseconds;
  while (Date.now() < end) {
    if (condition()) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return !condition();
}

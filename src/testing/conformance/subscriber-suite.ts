/**
 * Tests for everything that a subscriber must do, under any test runner.
 *
 * @module
 */
import { newMessage, type Message } from '../../core/contracts/message.js';
import type { Handler, HandlerContext, Subscriber, SubscriberOptions } from '../../core/contracts/subscriber.js';
import { assert, assertEqual, gate, rejection, until } from './assert.js';

/**
 * The features that a subscriber declares. The suite also tests that the subscriber rejects what it declares as
 * unsupported.
 */
export interface SubscriberFeatures {
  /**
   * A message whose handler failed is delivered again. If false, it is never delivered again, and the suite waits to
   * verify this.
   */
  readonly redelivers: boolean;
  /**
   * Messages with the same key are handled one at a time and in order, even if one fails. If false, this is not tested.
   */
  readonly ordered: boolean;
  /** The subscriber accepts a limit on concurrent handlers. If false, `create` with `concurrency` must reject. */
  readonly concurrency: boolean;
  /**
   * A message stays with this consumer while its handler runs longer than the broker's timeout. If false, this is not
   * tested.
   */
  readonly extendsWhileHandling: boolean;
  /** The subscriber waits for handlers when it stops. If false, `create` with `stopTimeout` must reject. */
  readonly stopTimeout: boolean;
}

/** The options with which the suite creates a subscriber. */
export interface SubscriberSetup extends Required<SubscriberOptions> {
  /** How many handlers may run at once. */
  readonly concurrency?: number;
  /** How many milliseconds a stop waits before it aborts the handlers' signal. */
  readonly stopTimeout?: number;
}

/** One subscriber, for a queue or topic that nothing else uses. */
export interface SubscriberHarness {
  readonly subscriber: Subscriber;
  /** Puts messages into the broker, in this order. */
  readonly publish: (messages: readonly Message[]) => Promise<void>;
  /** How many messages the broker still holds, including those that are being handled. */
  readonly pending: () => Promise<number>;
  /**
   * The number of milliseconds after which the broker delivers an unacknowledged message to another consumer. It should
   * be short, so that tests are fast.
   */
  readonly timeout: number;
  /** Makes the broker unreachable from now on. The subscriber must log the errors. */
  readonly breakBroker: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** The parameters of the suite. */
export interface SubscriberSuite {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** Creates a new harness. Called once per test. */
  readonly create: (setup: SubscriberSetup) => Promise<SubscriberHarness>;
  readonly features: SubscriberFeatures;
  /** How many milliseconds a test waits for something that must happen. @default 15_000 */
  readonly patience?: number;
}

/** A running subscription, and the messages and errors that it has seen. */
interface Running extends SubscriberHarness {
  readonly handled: readonly Message[];
  readonly errors: readonly Error[];
  /** Stops the subscription, and waits for its end. */
  readonly stop: () => Promise<void>;
  /** Whether `subscribe` has resolved. */
  readonly ended: () => boolean;
}

/** Starts a subscription with a handler. `handled` already contains the message when the handler is called. */
type Run = (
  handler: (message: Message, context: HandlerContext, handled: readonly Message[]) => Promise<void> | void,
  setup?: Omit<SubscriberSetup, 'errorLogger'>,
) => Promise<Running>;

/**
 * Declares the tests for the `Subscriber` contract.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('my subscriber', () => subscriberTestSuite({ it, create, features }));
 * ```
 */
export function subscriberTestSuite({ it, create, features, patience = 15_000 }: SubscriberSuite): void {
  const eventually = (condition: () => boolean | Promise<boolean>, what: string, more = 0): Promise<void> =>
    until(condition, what, patience + more);
  const test = (name: string, body: (run: Run) => Promise<void>): void => {
    it(name, () => running(create, body));
  };

  test('hands over published messages, and acknowledges them', async (run) => {
    const { publish, pending, handled, errors } = await run(() => undefined);
    const messages = Array.from({ length: 25 }, (_, i) =>
      newMessage(`grüße ${String(i)}`, { key: `k${String(i)}`, metadata: { n: String(i) } }),
    );
    await publish(messages);
    await eventually(async () => (await pending()) === 0, 'every message is acknowledged');
    const view = (some: readonly Message[]): unknown =>
      [...some].sort((a, b) => (a.id < b.id ? -1 : 1)).map(({ id, payload, metadata }) => [id, payload, metadata]);
    assertEqual(view(handled), view(messages), 'messages handled');
    assertEqual(errors.map(String), [], 'errors');
  });

  test('does not acknowledge a message before its handler has succeeded', async (run) => {
    const { opened, open } = gate();
    const { publish, pending, handled } = await run(() => opened);
    await publish([one()]);
    await eventually(() => handled.length === 1, 'the handler runs');
    const held = await pending();
    open();
    assertEqual(held, 1, 'messages that the broker holds while the handler runs');
    await eventually(async () => (await pending()) === 0, 'the message is acknowledged');
  });

  test(`logs the error of a handler, and the message ${features.redelivers ? 'is' : 'is not'} delivered again`, async (run) => {
    const { publish, pending, handled, errors, timeout } = await run((_, __, so) => {
      if (so.length === 1) throw new Error('the first time fails');
    });
    const message = one();
    await publish([message]);
    await eventually(
      () => errors.some((error) => String(error).includes('the first time fails')),
      'the error is logged',
    );
    if (!features.redelivers) {
      assert(await never(() => handled.length > 1, timeout * 2), 'the message came again');
      return;
    }
    await eventually(() => handled.length === 2, 'the message comes again', timeout * 3);
    await eventually(async () => (await pending()) === 0, 'the message is acknowledged');
    const ids = handled.map(({ id }) => id);
    assertEqual(ids, [message.id, message.id], 'ids handled');
  });

  if (features.concurrency) {
    test('runs as many handlers as configured, and no more', async (run) => {
      const { opened, open } = gate();
      let active = 0;
      let most = 0;
      const { publish, pending } = await run(
        async () => {
          most = Math.max(most, ++active);
          await opened;
          active -= 1;
        },
        { concurrency: 3 },
      );
      await publish(Array.from({ length: 12 }, () => one()));
      await eventually(() => active === 3, 'three handlers run');
      const bounded = await never(() => active > 3, 300);
      open();
      assert(bounded, 'more than three handlers ran');
      await eventually(async () => (await pending()) === 0, 'every message is acknowledged');
      assertEqual(most, 3, 'handlers at once');
    });
  } else {
    refuses('concurrency', { concurrency: 3 });
  }

  if (features.ordered) {
    test('handles messages of one key one at a time and in order, even if one fails', async (run) => {
      const active = new Set<string>();
      let failed = '';
      let overlap = false;
      const { publish, pending, handled, timeout } = await run(async ({ id, key = '', metadata }) => {
        overlap ||= active.has(key);
        active.add(key);
        await new Promise((resolve) => setTimeout(resolve, 5));
        active.delete(key);
        if (metadata['fails'] !== 'once' || failed === id) return;
        failed = id;
        throw new Error('fails once');
      });
      const messages = Array.from({ length: 20 }, (_, i) =>
        newMessage(String(i), { key: `k${String(i % 4)}`, metadata: i === 6 ? { fails: 'once' } : {} }),
      );
      await publish(messages);
      await eventually(async () => (await pending()) === 0, 'every message is acknowledged', timeout * 3);
      assert(!overlap, 'two handlers of one key ran at once');
      for (const key of new Set(messages.map((message) => message.key))) {
        const ids = (some: readonly Message[]): string[] =>
          some.filter((message) => message.key === key).map(({ id }) => id);
        // The failed message is handled twice in a row, with no other message with the same key in between.
        const expected = ids(messages).flatMap((id) => (id === failed ? [id, id] : [id]));
        assertEqual(ids(handled), expected, `order of key ${String(key)}`);
      }
    });
  }

  if (features.extendsWhileHandling) {
    test('keeps a message while its handler runs longer than the timeout of the broker', async (run) => {
      const { opened, open } = gate();
      const { publish, pending, handled, timeout } = await run(() => opened);
      await publish([one()]);
      await eventually(() => handled.length === 1, 'the handler runs');
      const kept = await never(() => handled.length > 1, timeout * 2);
      open();
      assert(kept, 'the message was delivered again while it was handled');
      await eventually(async () => (await pending()) === 0, 'the message is acknowledged');
      assertEqual(handled.length, 1, 'times handled');
    });
  }

  test('waits for running handlers when it stops, and acknowledges their messages', async (run) => {
    const { opened, open } = gate();
    const { publish, pending, handled, stop, ended } = await run(() => opened);
    await publish([one()]);
    await eventually(() => handled.length === 1, 'the handler runs');
    const stopped = stop();
    const waited = await never(ended, 200);
    open();
    assert(waited, 'subscribe resolved while a handler ran');
    await stopped;
    assertEqual(await pending(), 0, 'messages that the broker holds');
  });

  test('stops promptly while it waits for messages, and logs nothing', async (run) => {
    const { stop, errors } = await run(() => undefined);
    const start = Date.now();
    await stop();
    assert(Date.now() - start < 3_000, 'stopping took longer than 3 s');
    assertEqual(errors.map(String), [], 'errors');
  });

  if (features.stopTimeout) {
    test('aborts the signal of handlers that exceed the stop timeout', async (run) => {
      const { publish, pending, handled, errors, stop } = await run((_, { signal }) => aborted(signal), {
        stopTimeout: 100,
      });
      await publish([one()]);
      await eventually(() => handled.length === 1, 'the handler runs');
      await stop();
      const logged = errors.some((error) => String(error).includes(ABORTED));
      assert(logged, 'the handler did not see the abort, or its error was not logged');
      assertEqual(await pending(), 1, 'messages that the broker holds');
    });
  } else {
    refuses('stopTimeout', { stopTimeout: 100 });
  }

  test('logs the errors of the broker, and continues until it is stopped', async (run) => {
    const { publish, pending, breakBroker, errors, stop, ended } = await run(() => undefined);
    await publish([one()]);
    await eventually(async () => (await pending()) === 0, 'a message is acknowledged');
    await breakBroker();
    await eventually(() => errors.length >= 2, 'the error is logged, more than once');
    assert(!ended(), 'subscribe ended');
    await stop();
  });

  function refuses(option: string, setup: Omit<SubscriberSetup, 'errorLogger'>): void {
    it(`refuses ${option}`, async () => {
      await rejection(create({ ...setup, errorLogger: { error: () => undefined } }), `create with ${option}`);
    });
  }
}

/** Runs a test's subscription, and ends it whether the test passes or fails. */
async function running(create: SubscriberSuite['create'], body: (run: Run) => Promise<void>): Promise<void> {
  const ends: (() => Promise<void>)[] = [];
  try {
    await body(async (handler, setup = {}) => {
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
      ends.push(async () => {
        await stop();
        await harness.close();
      });
      return { ...harness, handled, errors, stop, ended: () => ended };
    });
  } finally {
    for (const end of ends) await end();
  }
}

const ABORTED = 'the handler saw the abort';

/** Rejects when the signal aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => {
      reject(new Error(ABORTED));
    });
  });
}

let keys = 0;

/** A message with its own key, because some brokers need one. */
function one(): Message {
  return newMessage('one', { key: `own-${String(++keys)}` });
}

/** Whether a condition stays false for this many milliseconds. */
async function never(condition: () => boolean, milliseconds: number): Promise<boolean> {
  const end = Date.now() + milliseconds;
  while (Date.now() < end) {
    if (condition()) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return !condition();
}

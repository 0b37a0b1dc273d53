/** A publisher that does not answer: who is told, what waits for it, and how long a stop does. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { MessengerEvent } from '../../src/core/contracts/events.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import type { PublishOptions } from '../../src/core/contracts/publisher.js';
import { ListFeedStore, recordingLogger, scripted, scriptedBatch, started } from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A store with one call that hangs until it is aborted. */
function storeHangingIn(call: 'read' | 'retries'): ListFeedStore {
  const store = storeOf('a1');
  store.changeFeed = (feed) => ({
    ...feed,
    [call]: ({ signal }: { signal?: AbortSignal } = {}) =>
      new Promise((_, reject) => {
        signal?.addEventListener('abort', () => {
          reject(signal.reason as Error);
        });
      }),
  });
  return store;
}

const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);
const never = () => new Promise(() => undefined);

function storeOf(...texts: readonly string[]): ListFeedStore {
  const store = new ListFeedStore();
  store.add(...texts);
  return store;
}

/** Stops a relay that waits for a publisher. */
async function stopped(relay: ReturnType<typeof started>): Promise<void> {
  const stopping = relay.stop();
  await vi.advanceTimersByTimeAsync(10_000);
  await stopping;
}

describe('a publisher that never answers', () => {
  test.each([
    ['one at a time', scripted],
    ['in batches', scriptedBatch],
  ])('is logged after the first timeout, and opens the circuit: %s', async (_, kind) => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 50));
    const publisher = kind(never);
    const errorLogger = recordingLogger();
    const messenger = new Messenger(store, publisher, { errorLogger });
    const relay = started(messenger);
    const begun = Date.now();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(messenger.circuit.state).toBe('closed');
    expect(messenger.circuit.waitingSince?.getTime()).toBe(begun);
    expect(errorLogger.errors).toEqual([]);
    await vi.advanceTimersByTimeAsync(20_001);
    expect(messenger.circuit).toMatchObject({ state: 'open', failures: 1 });
    expect(errorLogger.text()).toMatch(
      /^the broker does not answer: the publisher did not answer within 30000 ms, trying again in \d+ ms$/,
    );
    // What was not sent has not failed.
    await vi.advanceTimersByTimeAsync(20_000);
    expect(store.parked.size).toBe(0);
    await stopped(relay);
  });

  test('is logged once a minute, and again when it answers', async () => {
    vi.useFakeTimers();
    const store = storeOf('-1', '-2');
    let hangs = true;
    const publisher = scripted(() => (hangs ? never() : undefined));
    const errorLogger = {
      ...recordingLogger(),
      infos: [] as string[],
      info: (text: string) => void errorLogger.infos.push(text),
    };
    const relay = started(new Messenger(store, publisher, { errorLogger, publishTimeout: 1_000 }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(errorLogger.errors.filter(({ message }) => message.startsWith('the broker'))).toHaveLength(1);
    hangs = false;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(store.isDone).toBe(true);
    expect(errorLogger.infos).toEqual([
      expect.stringMatching(/^the broker answers again after \d+(\.\d)? s \(attempts: \d+\)$/),
    ]);
    await relay.stop();
  });

  test('delays only the key of the message that it does not answer', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'a2', ...numbered('-', 20));
    const publisher = scripted((text) => (text === 'a1' ? never() : undefined));
    const messenger = new Messenger(store, publisher, { errorLogger: recordingLogger() });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(30_001);
    expect(publisher.acknowledged.sort()).toEqual(numbered('-', 20).sort());
    expect(messenger.circuit.state).toBe('closed');
    expect([...store.parked].sort(([a], [b]) => a - b).map(([, { attempts }]) => attempts)).toEqual([1, 0]);
    await relay.stop();
  });

  test('does not hold up messages that are stored after the unanswered one', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1');
    const publisher = scripted((text) => (text === 'a1' ? never() : undefined));
    const relay = started(new Messenger(store, publisher, { errorLogger: recordingLogger() }));
    // It has been taken for the broker's failure, and is the one that finds out.
    await vi.advanceTimersByTimeAsync(31_000);
    store.add('b1');
    await vi.advanceTimersByTimeAsync(3_000);
    expect(publisher.acknowledged).toEqual(['b1']);
    await stopped(relay);
  });

  test('makes one unanswered message a dead letter in the end, even with one call at a time', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', ...numbered('-', 5));
    const publisher = scripted((text) => (text === 'a1' ? never() : undefined));
    const options = { concurrency: 1, publishTimeout: 1_000, retry: { maxAttempts: 3, maxDelay: 1_000 } };
    const relay = started(new Messenger(store, publisher, { ...options, errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(publisher.acknowledged).toEqual(numbered('-', 5));
    store.add('-later');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(store.dead).toEqual(['a1']);
    await relay.stop();
  });
});

describe('stopping', () => {
  const hanging = () => {
    const aborted: unknown[] = [];
    const hang = (_: string, options?: PublishOptions) => {
      options?.signal?.addEventListener('abort', () => aborted.push(options.signal?.reason));
      return never();
    };
    return { aborted, hang };
  };

  test.each([
    ['one at a time', scripted],
    ['in batches', scriptedBatch],
  ])(
    'ends within ten seconds whatever the publisher does, and logs what will be published again: %s',
    async (_, kind) => {
      vi.useFakeTimers();
      const store = storeOf('a1', 'b1', 'c1', 'a2');
      const { aborted, hang } = hanging();
      const publisher = kind(hang);
      const errorLogger = recordingLogger();
      const relay = started(new Messenger(store, publisher, { errorLogger }));
      await vi.advanceTimersByTimeAsync(1_000);
      let ended = false;
      const stopping = relay.stop().then(() => (ended = true));
      await vi.advanceTimersByTimeAsync(7_999);
      expect([ended, aborted]).toEqual([false, []]);
      await vi.advanceTimersByTimeAsync(1_000);
      await stopping;
      expect(aborted[0]).toMatchObject({ code: 'TIMEOUT' });
      expect(errorLogger.text()).toBe(
        'the relay was stopped, but the publisher did not answer within 8 s: messages to be published again: 3',
      );
      expect([store.cursor, store.parked.size, store.held]).toEqual([0, 0, false]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  test('settles what was acknowledged before, and leaves the rest to be published again', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'b1', 'c1', 'b2');
    const publisher = scripted((text) => (text === 'b1' ? never() : undefined));
    const errorLogger = recordingLogger();
    const options = { errorLogger, stopTimeout: 100 };
    const relay = started(new Messenger(store, publisher, options));
    await vi.advanceTimersByTimeAsync(1_000);
    const stopping = relay.stop();
    // Told to give up, it has half a second more to say what it did.
    await vi.advanceTimersByTimeAsync(700);
    await stopping;
    expect(errorLogger.text()).toMatch(/did not answer within 100 ms: messages to be published again: 1$/);
    expect(store.cursor).toBe(4);
    expect([...store.parked.values()].map(({ attempts, error }) => [attempts, error])).toEqual([
      [0, undefined],
      [0, undefined],
    ]);
    const next = scripted();
    const again = started(new Messenger(store, next, options));
    await vi.advanceTimersByTimeAsync(5_000);
    expect(next.acknowledged).toEqual(['b1', 'b2']);
    await again.stop();
  });

  const kinds = [
    ['one at a time', scripted],
    ['in batches', scriptedBatch],
  ] as const;

  /** Answers for `b1` when it is told to end, some time later. */
  const tellingLate = (
    kind: (typeof kinds)[number][1],
    tell: (resolve: () => void, reject: (error: Error) => void) => void,
  ) =>
    kind((text, options) =>
      text === 'a1'
        ? undefined
        : new Promise<void>((resolve, reject) => {
            options?.signal?.addEventListener('abort', () => {
              setTimeout(() => {
                tell(resolve, reject);
              }, 100);
            });
          }),
    );

  test.each(kinds)('settles a failure that the publisher answers after its signal aborts: %s', async (_, kind) => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'b1');
    const publisher = tellingLate(kind, (_resolve, reject) => {
      reject(new Error('given up'));
    });
    const errorLogger = recordingLogger();
    const events: MessengerEvent[] = [];
    const onEvent = (event: MessengerEvent) => void events.push(event);
    const relay = started(new Messenger(store, publisher, { errorLogger, onEvent, stopTimeout: 0 }));
    await vi.advanceTimersByTimeAsync(1_000);
    const stopping = relay.stop();
    await vi.advanceTimersByTimeAsync(200);
    await stopping;
    expect(errorLogger.text()).toMatch(/did not answer within 0 ms: messages to be published again: 1$/);
    expect(store.cursor).toBe(2);
    expect([...store.parked.keys()]).toEqual([1]);
    // It was not waited for: that is no failure.
    expect(events.filter(({ type }) => type === 'failed')).toEqual([]);
  });

  test.each(kinds)(
    'settles an acknowledgement that the publisher gives after its signal aborts: %s',
    async (_, kind) => {
      vi.useFakeTimers();
      const store = storeOf('a1', 'b1');
      const publisher = tellingLate(kind, (resolve) => {
        resolve();
      });
      const errorLogger = recordingLogger();
      const relay = started(new Messenger(store, publisher, { errorLogger, stopTimeout: 0 }));
      await vi.advanceTimersByTimeAsync(1_000);
      const stopping = relay.stop();
      await vi.advanceTimersByTimeAsync(200);
      await stopping;
      expect(errorLogger.errors).toEqual([]);
      expect([store.cursor, store.parked.size]).toEqual([2, 0]);
    },
  );

  test('does not wait for a datastore that hangs', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1');
    store.fault = (call) => (call === 'settle' ? never() : undefined);
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { errorLogger }));
    await vi.advanceTimersByTimeAsync(1_000);
    let ended = false;
    const stopping = relay.stop().then(() => (ended = true));
    await vi.advanceTimersByTimeAsync(9_999);
    expect(ended).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await stopping;
    expect(errorLogger.text()).toMatch(
      /the datastore does not answer, so messages that were not settled will be published again$/,
    );
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each(['read', 'retries'] as const)(
    'aborts a call of the store that hangs, which is no failure: %s',
    async (call) => {
      vi.useFakeTimers();
      const errorLogger = recordingLogger();
      const events: MessengerEvent[] = [];
      const onEvent = (event: MessengerEvent) => void events.push(event);
      const relay = started(new Messenger(storeHangingIn(call), scripted(), { errorLogger, onEvent }));
      await vi.advanceTimersByTimeAsync(1_000);
      let ended = false;
      const stopping = relay.stop().then(() => (ended = true));
      await vi.advanceTimersByTimeAsync(0);
      expect(ended).toBe(true);
      await stopping;
      expect(errorLogger.errors).toEqual([]);
      expect(events.at(-1)).toEqual({ type: 'lease-lost', destination: 'default', partitions: [0] });
    },
  );

  test.each(['read', 'retries'] as const)('aborts a call of the store that hangs in publish: %s', async (call) => {
    vi.useFakeTimers();
    const store = storeHangingIn(call);
    const stop = new AbortController();
    let result: unknown;
    void new Messenger(store, scripted()).publish({ signal: stop.signal }).then((count) => (result = count));
    await vi.advanceTimersByTimeAsync(1_000);
    expect([result, store.held]).toEqual([undefined, true]);
    stop.abort();
    await vi.advanceTimersByTimeAsync(0);
    expect([result, store.held]).toEqual([0, false]);
  });

  test('waits as long in publish as in a relay', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'b1');
    const publisher = scripted((text) => (text === 'b1' ? never() : undefined));
    const stop = new AbortController();
    let result: unknown;
    void new Messenger(store, publisher).publish({ signal: stop.signal }).then((count) => (result = count));
    await vi.advanceTimersByTimeAsync(1_000);
    stop.abort();
    await vi.advanceTimersByTimeAsync(7_999);
    expect(result).toBeUndefined();
    await vi.advanceTimersByTimeAsync(501);
    expect(result).toBe(1);
    expect([store.cursor, store.parked.size]).toEqual([2, 1]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each([-1, Number.NaN, '1', 86_400_001])('refuses a stopTimeout of %j', (stopTimeout) => {
    expect(() => new Messenger(storeOf(), scripted(), { stopTimeout: stopTimeout as number })).toThrow(
      /^stopTimeout must be a number from 0 to 86400000, got /,
    );
  });
});

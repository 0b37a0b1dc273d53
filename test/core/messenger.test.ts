/** `Messenger` as its user meets it: options, one pass, cleaning, starting and stopping, outages of the store. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { FatalError, MessengerError, PublishError } from '../../src/core/errors.js';
import type { MessengerEvent } from '../../src/core/contracts/events.js';
import type { Message } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import type { MessengerOptions } from '../../src/core/relay/options.js';
import type { Store } from '../../src/core/contracts/store.js';
import { PlainStore } from '../support/plain-store.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import {
  FAST,
  plainStore,
  message,
  put,
  recordingLogger,
  refusal,
  scripted,
  scriptedBatch,
  started,
  textOf,
  unpublished,
} from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `-${i}`);

/** What a promise rejects with. */
async function rejected(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it was not rejected');
}

/** The errors that a PublishError stands for. */
const failuresOf = (error: unknown): readonly PublishError[] =>
  ((error as PublishError).cause as AggregateError).errors as PublishError[];

/** A store that can be told to fail. */
function faulty(store: Store): Store & { down: Error | undefined; calls: string[] } {
  const call = <T>(name: string, work: () => Promise<T>): Promise<T> => {
    self.calls.push(name);
    return self.down === undefined ? work() : Promise.reject(self.down);
  };
  const self: Store & { down: Error | undefined; calls: string[] } = {
    down: undefined,
    calls: [],
    messages: (batch) => call('messages', () => store.messages(batch)),
    published: (...messages) => call('published', () => store.published(...messages)),
    deletePublishedByExpiration: (age) => call('delete', () => store.deletePublishedByExpiration(age)),
  };
  return self;
}

describe('options', () => {
  const ranges: readonly [keyof MessengerOptions | 'retry.minDelay' | 'retry.maxDelay', readonly unknown[]][] = [
    ['publishBatchSize', [0, -1, 1.5, 10_001, Number.NaN, Infinity, '5', null]],
    ['interval', [0, -1, 86_400_001, Number.NaN, '1s', null]],
    ['cleanUp', [-1, Number.NaN, Infinity, '1d', null]],
    ['concurrency', [0, 1.5, 1_001, '5']],
    ['publishTimeout', [0, 86_400_001, Infinity]],
    ['storeOutageLimit', [-1, Infinity, Number.NaN]],
    ['retry.minDelay', [0, -5, 86_400_001, 'x']],
    ['retry.maxDelay', [0, 86_400_001, 499]],
  ];
  const cases = ranges.flatMap(([name, values]) => values.map((value) => [name, value] as const));

  test.each(cases)('refuse a wrong %s and quote it: %j', (name, value) => {
    const [outer, inner] = name.split('.') as [string, string?];
    const options = { [outer]: inner === undefined ? value : { [inner]: value } };
    const make = () => new Messenger(new PlainStore(), scripted(), options);
    expect(make).toThrow(MessengerError);
    const quoted = typeof value === 'string' ? JSON.stringify(value) : String(value);
    expect(make).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTION',
        message: expect.stringMatching(new RegExp(`^${name} must be .* from .* to .*, got ${quoted}`)) as string,
      }) as Error,
    );
  });

  test.each([
    ['destination', '', /destination must be a non-empty string, got ""/],
    ['destination', 5, /destination must be a non-empty string, got 5/],
    ['errorLogger', {}, /errorLogger must have the methods error; error is missing in an object \(Object\)/],
    ['errorLogger', null, /errorLogger must have the methods error; error is missing in null/],
  ])('refuse a wrong %s: %j', (name, value, text) => {
    expect(() => new Messenger(new PlainStore(), scripted(), { [name]: value })).toThrow(text);
  });

  test('refuse a store or a publisher without its methods, and name the missing methods', () => {
    const store = { messages: () => Promise.resolve([]) } as unknown as Store;
    expect(() => new Messenger(store, scripted())).toThrow(/published, deletePublishedByExpiration is missing/);
    expect(() => new Messenger(undefined as unknown as Store, scripted())).toThrow(/missing in undefined/);
    expect(() => new Messenger(new PlainStore(), {} as never)).toThrow(/publisher must have the methods publish/);
  });

  test('allow the limits of each range', () => {
    for (const options of [
      { publishBatchSize: 1, interval: 1, cleanUp: 0, concurrency: 1, publishTimeout: 1, storeOutageLimit: 0 },
      { publishBatchSize: 10_000, interval: 86_400_000, concurrency: 1_000, retry: { minDelay: 7, maxDelay: 7 } },
      { retry: { minDelay: 86_400_000 } },
    ]) {
      expect(() => new Messenger(new PlainStore(), scripted(), options)).not.toThrow();
    }
  });
});

describe("the seed's defaults", () => {
  test('publish batches of 100', async () => {
    const store = await plainStore(...numbered(250));
    const publisher = scriptedBatch();
    const messenger = new Messenger(store, publisher);
    expect(await messenger.publish()).toBe(100);
    expect(publisher.calls).toEqual([numbered(100)]);
  });

  test('read every second when idle, and at once while there is work', async () => {
    vi.useFakeTimers();
    const store = await plainStore(...numbered(1_000));
    const listing = vi.spyOn(store, 'messages');
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher));
    await vi.advanceTimersByTimeAsync(0);
    expect(publisher.sent).toHaveLength(1_000);

    // Long enough for the pauses to have grown to what they grow to.
    await vi.advanceTimersByTimeAsync(60_000);
    listing.mockClear();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(listing).toHaveBeenCalledTimes(10);
    await relay.stop();
  });

  test('write errors to standard error', async () => {
    const error = vi.spyOn(console, 'error').mockReturnValue();
    const store = await plainStore('a1');
    const relay = started(
      new Messenger(
        store,
        scripted(() => Promise.reject(refusal('permanent', 'refused'))),
      ),
    );
    await until(() => error.mock.calls.length > 0, 'an error on the console');
    await relay.stop();
    expect(error).toHaveBeenCalledExactlyOnceWith(
      // With the time, and without a stack.
      expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z messenger-outbox: message \S+ is a dead letter: refused$/),
    );
  });
});

describe('publish', () => {
  test('publishes and marks one page, and resolves to the number of messages', async () => {
    const store = await plainStore('a1', 'a2', 'b1', '-1', 'a3');
    const publisher = scripted();
    const messenger = new Messenger(store, publisher, { publishBatchSize: 3 });
    expect(await messenger.publish()).toBe(3);
    expect(publisher.sent).toEqual(['a1', 'b1', 'a2']);
    expect(await unpublished(store)).toEqual(['-1', 'a3']);
    expect(await messenger.publish()).toBe(2);
    expect(await messenger.publish()).toBe(0);
    expect(await unpublished(store)).toEqual([]);
  });

  test('hands whole messages to the publisher', async () => {
    const store = new PlainStore();
    const made = message('x', { topic: 't', key: 'k', metadata: { a: 'b' } });
    await store.transaction((transaction) => store.add(transaction, made));
    const seen: unknown[] = [];
    await new Messenger(store, { publish: async (each) => void seen.push(each) }).publish();
    expect(seen).toEqual([{ ...made, metadata: { a: 'b' }, published: false }]);
  });

  test('marks nothing as published before the broker has acknowledged it', async () => {
    const order: string[] = [];
    const acknowledge = gate();
    const messages = ['a1', 'b1'].map((text) => message(text));
    const store: Store = {
      messages: async () => messages,
      published: async (...these) => void order.push(`published ${these.map(textOf).join(' ')}`),
      deletePublishedByExpiration: async () => undefined,
    };
    const publisher = scripted(async (text) => {
      order.push(`sent ${text}`);
      if (text === 'a1') await acknowledge.opened;
      order.push(`acknowledged ${text}`);
    });
    const publishing = new Messenger(store, publisher).publish();
    await until(() => order.includes('acknowledged b1'), 'b1');
    expect(order).toEqual(['sent a1', 'sent b1', 'acknowledged b1']);
    acknowledge.open();
    await publishing;
    expect(order.slice(3)).toEqual(['acknowledged a1', 'published a1 b1']);
  });

  test('rejects with every failure after the rest is settled', async () => {
    const store = await plainStore('a1', 'a2', 'b1', 'c1', 'd1');
    const logger = recordingLogger();
    const publisher = scripted((text) => {
      if (text === 'a1') throw refusal('permanent', 'too large');
      if (text === 'c1') throw new Error('busy');
    });
    const error = await rejected(new Messenger(store, publisher, { errorLogger: logger }).publish());
    expect(error).toBeInstanceOf(PublishError);
    expect((error as Error).message).toMatch(/^3 messages were published, with 2 failures: .*too large/);
    expect(failuresOf(error).map(({ kind }) => kind)).toEqual(['permanent', 'retryable']);
    expect(failuresOf(error).map(({ cause }) => (cause as Error).message)).toEqual(['too large', 'busy']);
    expect(await unpublished(store)).toEqual(['a1', 'c1']);
    // It was thrown: telling it twice would count it twice.
    expect(logger.errors).toEqual([]);
  });

  test('does not wait for a broker that is down', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1', 'b1', 'c1');
    const publisher = scriptedBatch((text) => {
      if (text !== 'a1') throw refusal('connection', 'no broker');
    });
    const error = await rejected(new Messenger(store, publisher).publish());
    expect(failuresOf(error)).toMatchObject([{ kind: 'connection' }]);
    expect(publisher.sent).toEqual(['a1', 'b1', 'c1']);
    expect(await unpublished(store)).toEqual(['b1', 'c1']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("rejects with the store's own error", async () => {
    const store = faulty(await plainStore('a1'));
    store.down = new Error('no store');
    const publisher = scripted();
    const messenger = new Messenger(store, publisher);
    expect(await rejected(messenger.publish())).toBe(store.down);
    expect(publisher.sent).toEqual([]);
  });

  test('sends nothing when its signal is aborted', async () => {
    const store = await plainStore('a1');
    const publisher = scripted();
    expect(await new Messenger(store, publisher).publish({ signal: AbortSignal.abort() })).toBe(0);
    expect(publisher.sent).toEqual([]);
  });
});

describe('clean', () => {
  test('deletes published messages once they are old enough', async () => {
    const store = await plainStore('a1', 'a2');
    await new Messenger(store, scripted(), { publishBatchSize: 1 }).publish();
    await new Messenger(store, scripted(), { cleanUp: 3_600_000 }).clean();
    expect(store.all()).toHaveLength(2);
    const events: MessengerEvent[] = [];
    await new Messenger(store, scripted(), { cleanUp: 0, onEvent: (event) => events.push(event) }).clean();
    expect(events).toEqual([
      {
        type: 'cleaned',
        destination: 'default',
        duration: expect.any(Number) as number,
        report: { emptied: 0, rows: 1, moved: 0, kept: [], forgotten: [] },
      },
    ]);
    expect(store.all().map(textOf)).toEqual(['a2']);
  });

  test('needs the cleanUp option, and passes the option and the signal to the store', async () => {
    const store = await plainStore();
    const deleting = vi.spyOn(store, 'deletePublishedByExpiration');
    const { signal } = new AbortController();
    await new Messenger(store, scripted(), { cleanUp: 5_000 }).clean({ signal });
    expect(deleting).toHaveBeenCalledExactlyOnceWith(5_000, { signal });
    const error = await rejected(new Messenger(store, scripted()).clean());
    expect(error).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining('cleanUp') as string });
  });

  test("rejects with the store's own error", async () => {
    const store = faulty(await plainStore());
    store.down = new Error('no store');
    expect(await rejected(new Messenger(store, scripted(), { cleanUp: 1 }).clean())).toBe(store.down);
  });

  test('runs again and again in start', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1');
    const relay = started(new Messenger(store, scripted(), { cleanUp: 10_000 }));
    await vi.advanceTimersByTimeAsync(9_000);
    expect(store.all()).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(store.all()).toHaveLength(0);
    await put(store, 'a2');
    await vi.advanceTimersByTimeAsync(15_000);
    expect(store.all()).toHaveLength(0);
    await relay.stop();
  });

  test('does not run in start without the option', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1');
    const deleting = vi.spyOn(store, 'deletePublishedByExpiration');
    const relay = started(new Messenger(store, scripted()));
    await vi.advanceTimersByTimeAsync(600_000);
    await relay.stop();
    expect(deleting).not.toHaveBeenCalled();
  });

  test('logs its errors, and publishing goes on', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1');
    vi.spyOn(store, 'deletePublishedByExpiration').mockRejectedValue(new Error('cannot delete'));
    const errorLogger = recordingLogger();
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { cleanUp: 10_000, storeOutageLimit: 0, errorLogger }));
    await vi.advanceTimersByTimeAsync(5_000);
    await put(store, 'a2');
    await vi.advanceTimersByTimeAsync(5_000);
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['a1', 'a2']);
    expect(errorLogger.errors.length).toBeGreaterThan(1);
    expect(new Set(errorLogger.errors.map((error) => error.message))).toEqual(new Set(['cannot delete']));
  });
});

describe('start', () => {
  test('publishes existing and new messages until it is aborted', async () => {
    const store = await plainStore(...numbered(7));
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 2 }));
    await until(() => publisher.sent.length === 7, 'the first 7');
    await put(store, 'a1');
    await until(() => publisher.sent.length === 8, 'one more');
    await relay.stop();
    await put(store, 'a2');
    expect(publisher.sent).toEqual([...numbered(7), 'a1']);
    expect(await unpublished(store)).toEqual(['a2']);
  });

  test('can be started again after it ended', async () => {
    const store = await plainStore('a1');
    const publisher = scripted();
    const messenger = new Messenger(store, publisher, FAST);
    for (const text of ['a1', 'a2']) {
      const relay = started(messenger);
      await until(() => publisher.sent.includes(text), text);
      await relay.stop();
      await put(store, 'a2');
    }
  });

  test('does nothing if its signal has already aborted', async () => {
    const store = faulty(await plainStore('a1'));
    await new Messenger(store, scripted()).start({ signal: AbortSignal.abort() });
    expect(store.calls).toEqual([]);
  });

  test('logs an error of the broker, and publishes the rest', async () => {
    const store = await plainStore('a1', 'b1', 'c1');
    const errorLogger = recordingLogger();
    let failures = 3;
    const publisher = scripted((text) => {
      if (text === 'b1' && failures-- > 0) throw new Error('refused for now');
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger }));
    await until(async () => (await unpublished(store)).length === 0, 'all of them');
    await relay.stop();
    expect(errorLogger.errors).toHaveLength(3);
    const { id } = store.all()[1]!;
    for (const [i, error] of errorLogger.errors.entries()) {
      expect(error).toBeInstanceOf(PublishError);
      expect(error.message).toMatch(
        new RegExp(`message ${id} was not published \\(attempt ${i + 1}, .*refused for now`),
      );
      expect((error.cause as Error).message).toBe('refused for now');
    }
  });

  test.each([
    ['throws', (): void => expect.unreachable()],
    ['rejects', (): void => Promise.reject(new Error('no disk')) as unknown as undefined],
  ])('goes on with an error logger that %s', async (_, error) => {
    const store = await plainStore('a1', 'b1');
    let failed = false;
    const publisher = scripted((text) => {
      if (text !== 'a1' || failed) return;
      failed = true;
      throw new Error('once');
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: { error } }));
    await until(async () => (await unpublished(store)).length === 0, 'both');
    await relay.stop();
    expect(publisher.acknowledged.sort()).toEqual(['a1', 'b1']);
  });
});

describe('a store that fails', () => {
  const down = new Error('connection refused');

  test.each([0, 30_000, Number.MAX_SAFE_INTEGER])('is fatal at the start (limit %i)', async (storeOutageLimit) => {
    const store = faulty(await plainStore('a1'));
    store.down = down;
    const errorLogger = recordingLogger();
    const error = await rejected(new Messenger(store, scripted(), { storeOutageLimit, errorLogger }).start());
    expect(error).toBeInstanceOf(FatalError);
    expect(error).toMatchObject({
      code: 'FATAL',
      cause: down,
      message: 'the datastore cannot be reached: connection refused',
    });
    expect(store.calls).toEqual(['messages']);
  });

  test('is tolerated later, until storeOutageLimit is over by the clock', async () => {
    vi.useFakeTimers();
    const store = faulty(await plainStore('a1'));
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { storeOutageLimit: 10_000, errorLogger }));
    let fatal: unknown;
    relay.ended.catch((error: unknown) => (fatal = error));
    await vi.advanceTimersByTimeAsync(5_000);
    store.down = down;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(fatal).toBeUndefined();
    expect(errorLogger.errors).toEqual([expect.objectContaining({ code: 'DATASTORE_FAILED', cause: down })]);
    // The last look is at most one pause before the limit, the next at most one after it.
    await vi.advanceTimersByTimeAsync(3_000);
    expect(fatal).toBeInstanceOf(FatalError);
    expect(fatal).toMatchObject({
      cause: down,
      message: expect.stringMatching(/has not answered for \d+ ms \(limit 10000 ms\)/) as string,
    });
    expect(vi.getTimerCount()).toBe(0);
  });

  test('is tried again later after growing pauses of up to two seconds', async () => {
    vi.useFakeTimers();
    vi.spyOn(Math, 'random').mockReturnValue(1);
    const store = faulty(await plainStore('a1'));
    const failedAt: number[] = [];
    const messages = store.messages.bind(store);
    vi.spyOn(store, 'messages').mockImplementation((...args) => {
      if (store.down !== undefined) failedAt.push(Date.now());
      return messages(...args);
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { storeOutageLimit: 60_000, errorLogger }));
    await vi.advanceTimersByTimeAsync(1_000);
    store.down = down;
    await vi.advanceTimersByTimeAsync(20_000);
    const pauses = failedAt.slice(1).map((at, i) => at - failedAt[i]!);
    expect(pauses.slice(0, 8)).toEqual([50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
    // Answered once, it is at the shortest again.
    store.down = undefined;
    await vi.advanceTimersByTimeAsync(3_000);
    failedAt.length = 0;
    store.down = down;
    await vi.advanceTimersByTimeAsync(2_000);
    expect(failedAt[1]! - failedAt[0]!).toBe(50);
    await relay.stop();
  });

  test('is fatal at once with a limit of 0, as in the seed', async () => {
    const store = faulty(await plainStore('a1'));
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { ...FAST, storeOutageLimit: 0, errorLogger }));
    await until(() => store.calls.includes('published'), 'a1');
    store.down = down;
    expect(await rejected(relay.ended)).toMatchObject({ code: 'FATAL', cause: down });
    expect(errorLogger.errors).toEqual([]);
  });

  test('gets the whole limit again after it recovers', async () => {
    vi.useFakeTimers();
    const store = faulty(await plainStore());
    const publisher = scripted();
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { storeOutageLimit: 10_000, errorLogger }));
    await vi.advanceTimersByTimeAsync(2_000);
    for (let outage = 0; outage < 5; outage++) {
      store.down = down;
      await vi.advanceTimersByTimeAsync(7_000);
      store.down = undefined;
      await vi.advanceTimersByTimeAsync(4_000);
    }
    await relay.stop();
    // Each of them.
    expect(errorLogger.errors.map(({ cause }) => cause)).toEqual([down, down, down, down, down]);
  });

  test('is fatal if it cannot mark messages but still lists them, because they would be published again and again', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1');
    const errorLogger = recordingLogger();
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { storeOutageLimit: 10_000, errorLogger }));
    await vi.advanceTimersByTimeAsync(5_000);
    vi.spyOn(store, 'published').mockRejectedValue(down);
    await put(store, 'a2');
    let fatal: unknown;
    relay.ended.catch((error: unknown) => (fatal = error));
    await vi.advanceTimersByTimeAsync(20_000);
    expect(fatal).toMatchObject({ code: 'FATAL', cause: down });
    // Again with each attempt, which become rare.
    expect(publisher.sent.length).toBeLessThan(30);
  });

  test('has an outage, not a fatal error, if the first marking fails, because it could be reached', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1');
    const marking = vi.spyOn(store, 'published').mockRejectedValueOnce(down).mockRejectedValueOnce(down);
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { errorLogger }));
    await vi.advanceTimersByTimeAsync(5_000);
    await relay.stop();
    // Twice, and the same outage.
    expect(marking).toHaveBeenCalledTimes(3);
    expect(errorLogger.errors.map(({ cause }) => cause)).toEqual([down]);
    expect(await unpublished(store)).toEqual([]);
  });

  test('gets a whole page published again if marking one of its messages fails', async () => {
    const store = await plainStore('a1', 'b1', 'c1');
    vi.spyOn(store, 'published').mockRejectedValueOnce(down);
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(async () => (await unpublished(store)).length === 0, 'all of them');
    await relay.stop();
    expect(publisher.sent).toEqual(['a1', 'b1', 'c1', 'a1', 'b1', 'c1']);
  });

  test('is fatal with an unusable schema, whatever the limit', async () => {
    const store = faulty(await plainStore('a1'));
    const relay = started(new Messenger(store, scripted(), FAST));
    await until(() => store.calls.includes('published'), 'a1');
    store.down = new MessengerError('SCHEMA_MISMATCH', 'run messenger migrate');
    expect(await rejected(relay.ended)).toMatchObject({
      code: 'FATAL',
      cause: store.down,
      message: 'the datastore cannot be used: run messenger migrate',
    });
  });

  test('is no longer waited for after an abort', async () => {
    vi.useFakeTimers();
    const store = faulty(await plainStore('a1'));
    const relay = started(new Messenger(store, scripted(), { errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(100);
    store.down = down;
    await vi.advanceTimersByTimeAsync(5_000);
    await relay.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('abort', () => {
  test('waits for the messages in flight, settles them, and sends nothing more', async () => {
    const store = await plainStore(...numbered(40));
    const broker = gate();
    const publisher = scripted(() => broker.opened);
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 20, concurrency: 3 }));
    await until(() => publisher.sent.length === 3, 'three in flight');
    let ended = false;
    const stopping = relay.stop().then(() => (ended = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(false);
    broker.open();
    await stopping;
    expect(publisher.acknowledged).toEqual(['-0', '-1', '-2']);
    expect(publisher.sent).toHaveLength(3);
    expect(await unpublished(store)).toEqual(numbered(40).slice(3));
  });

  test('waits for a batch in flight, and sends no other batch', async () => {
    const store = await plainStore('a1', 'a2', 'b1');
    const broker = gate();
    const publisher = scriptedBatch(() => broker.opened);
    const relay = started(new Messenger(store, publisher, FAST));
    await until(() => publisher.calls.length === 1, 'a batch in flight');
    const stopping = relay.stop();
    broker.open();
    await stopping;
    expect(publisher.calls).toEqual([['a1', 'b1']]);
    expect(await unpublished(store)).toEqual(['a2']);
  });

  test('reports a message that fails while the relay stops, but not a message that was not sent', async () => {
    const store = await plainStore('a1', 'a2', 'b1', 'c1');
    const broker = gate();
    const errorLogger = recordingLogger();
    const publisher = scripted(async (text) => {
      await broker.opened;
      if (text === 'a1') throw new Error('refused');
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, concurrency: 2, errorLogger }));
    await until(() => publisher.sent.length === 2, 'two in flight');
    const stopping = relay.stop();
    broker.open();
    await stopping;
    expect(publisher.sent).toEqual(['a1', 'b1']);
    expect(errorLogger.errors).toHaveLength(1);
    expect(errorLogger.text()).toMatch(/attempt 1, .*refused/);
    expect(await unpublished(store)).toEqual(['a1', 'a2', 'c1']);
  });

  test('waits until the previous page is settled', async () => {
    const store = await plainStore('a1');
    const settled = gate();
    const published = store.published.bind(store);
    const marking = vi.spyOn(store, 'published').mockImplementation(async (...messages: readonly Message[]) => {
      await settled.opened;
      await published(...messages);
    });
    const relay = started(new Messenger(store, scripted(), FAST));
    await until(() => marking.mock.calls.length === 1, 'a settlement under way');
    const stopping = relay.stop();
    settled.open();
    await stopping;
    expect(await unpublished(store)).toEqual([]);
  });

  test('reports a settlement that fails while the relay stops', async () => {
    const store = await plainStore('a1');
    const settled = gate();
    const down = new Error('connection reset');
    const marking = vi.spyOn(store, 'published').mockImplementation(async () => {
      await settled.opened;
      throw down;
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scripted(), { ...FAST, errorLogger }));
    await until(() => marking.mock.calls.length === 1, 'a settlement under way');
    const stopping = relay.stop();
    settled.open();
    await stopping;
    expect(errorLogger.errors).toEqual([down]);
  });

  test('ends the pause for a failing broker', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1', 'b1');
    const publisher = scriptedBatch(() => Promise.reject(refusal('connection', 'no broker')));
    const errorLogger = recordingLogger();
    const retry = { minDelay: 3_600_000, maxDelay: 3_600_000 };
    const relay = started(new Messenger(store, publisher, { retry, errorLogger }));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(publisher.calls).toHaveLength(1);
    await relay.stop();
    expect(publisher.calls).toHaveLength(1);
    expect(errorLogger.text()).toMatch(/^the broker fails: no broker, trying again in \d+ min$/);
    expect(await unpublished(store)).toEqual(['a1', 'b1']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('leaves no listener on the signal', async () => {
    const store = await plainStore('a1', 'b1');
    const { signal } = new AbortController();
    const adding = vi.spyOn(signal, 'addEventListener');
    const removing = vi.spyOn(signal, 'removeEventListener');
    await new Messenger(store, scripted()).publish({ signal });
    const left = new Set(adding.mock.calls.map(([, listener]) => listener));
    for (const [, listener] of removing.mock.calls) left.delete(listener);
    expect(left.size).toBe(0);
    expect(adding).toHaveBeenCalled();
  });
});

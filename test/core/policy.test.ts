/** What becomes of a message that keeps failing, by policy and by topic; how errors are classified; events. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { PublishError } from '../../src/core/errors.js';
import type { MessengerEvent } from '../../src/core/contracts/events.js';
import { classify, failureKind, NETWORK_FAILURES } from '../../src/core/publish/failure-kinds.js';
import { signatureOf } from '../../src/core/util/error-signature.js';
import { newMessage } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import type { MessengerOptions } from '../../src/core/relay/options.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import {
  FAST,
  ListFeedStore,
  plainStore,
  recordingLogger,
  refusal,
  scripted,
  scriptedBatch,
  started,
  textOf,
} from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function storeOf(...texts: readonly string[]): ListFeedStore {
  const store = new ListFeedStore();
  store.add(...texts);
  return store;
}

describe('after the last attempt', () => {
  test('makes a message a dead letter after twenty attempts in about half an hour', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'a2', 'b1');
    const publisher = scripted((text) => {
      if (text === 'a1') throw new Error('busy');
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { errorLogger }));
    await vi.advanceTimersByTimeAsync(4 * 60_000);
    expect(store.dead).toEqual([]);
    await vi.advanceTimersByTimeAsync(55 * 60_000);
    await relay.stop();
    expect(store.dead).toEqual(['a1']);
    expect(publisher.sent.filter((text) => text === 'a1')).toHaveLength(20);
    expect(publisher.acknowledged).toEqual(['b1', 'a2']);
    expect(errorLogger.errors.at(-1)?.message).toMatch(/is a dead letter after 20 attempts: busy/);
  });

  test.each([
    ['after its attempts', () => new Error('busy'), 3],
    ['at once when it is refused for ever', () => refusal('permanent'), 1],
  ])('blocks the key of the message, and no other key, with block-key: %s', async (_, error, attempts) => {
    const store = storeOf('a1', 'b1', 'a2', '-1');
    const publisher = scripted((text) => {
      if (text === 'a1') throw error();
    });
    const retry = { ...FAST.retry, maxAttempts: 3, onExhausted: 'block-key' } as const;
    const relay = started(new Messenger(store, publisher, { ...FAST, retry, errorLogger: recordingLogger() }));
    await until(() => store.parked.get(0)?.blocked === true, 'a blocked key');
    store.add('a3', 'b2');
    await until(() => publisher.acknowledged.includes('b2'), 'b2');
    await relay.stop();
    expect(publisher.sent.filter((text) => text === 'a1')).toHaveLength(attempts);
    expect(publisher.acknowledged.sort()).toEqual(['-1', 'b1', 'b2']);
    expect(store.parked.get(0)).toMatchObject({ attempts, dead: false, blocked: true });
  });

  test('keeps a key blocked on a plain store too', async () => {
    const store = await plainStore('a1', 'a2', 'b1');
    const publisher = scripted((text) => {
      if (text === 'a1') throw new Error('busy');
    });
    const retry = { ...FAST.retry, maxAttempts: 2, onExhausted: 'block-key' } as const;
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, retry, errorLogger }));
    await until(() => errorLogger.text().includes('blocks its key'), 'a blocked key');
    await new Promise((resolve) => setTimeout(resolve, 20));
    await relay.stop();
    expect(publisher.sent.filter((text) => text.startsWith('a'))).toEqual(['a1', 'a1']);
  });

  test('never gives up with maxAttempts: Infinity', async () => {
    const store = storeOf('a1');
    let attempts = 0;
    const publisher = scripted(() => {
      if (++attempts <= 40) throw new Error('busy');
    });
    const retry = { ...FAST.retry, maxAttempts: Infinity };
    const relay = started(new Messenger(store, publisher, { ...FAST, retry, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'a1');
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['a1']);
  });

  test('uses the options of the topic, and the general options where the topic has none', async () => {
    const store = new ListFeedStore();
    for (const topic of ['strict', 'other']) store.log.push(newMessage(topic, { topic, key: topic }));
    const publisher = scriptedBatch((text) => Promise.reject(new Error(text)));
    const options: MessengerOptions = {
      ...FAST,
      retry: { ...FAST.retry, maxAttempts: 4 },
      topics: { strict: { retry: { maxAttempts: 2, onExhausted: 'block-key' } } },
      errorLogger: recordingLogger(),
    };
    const relay = started(new Messenger(store, publisher, options));
    await until(() => store.dead.length === 1 && store.parked.get(0)?.blocked === true, 'both ends');
    await relay.stop();
    expect(store.parked.get(0)).toMatchObject({ attempts: 2, blocked: true });
    expect(store.parked.get(1)).toMatchObject({ attempts: 4, dead: true });
  });

  test.each<[MessengerOptions, string]>([
    [{ retry: { maxAttempts: 0 } }, 'retry.maxAttempts must be a whole number from 1 to'],
    [{ retry: { maxAttempts: Number.NaN } }, 'retry.maxAttempts must be'],
    [{ retry: { onExhausted: 'drop' as never } }, 'retry.onExhausted must be "dead-letter" or "block-key", got "drop"'],
    [{ maxParked: 0 }, 'maxParked must be'],
    [{ maxParked: Number.NaN }, 'maxParked must be'],
    [{ pipelineDepth: 0 }, 'pipelineDepth must be a whole number from 1 to 100, got 0'],
    [{ pipelineDepth: 101 }, 'pipelineDepth must be'],
    [{ pipelineDepth: Number.NaN }, 'pipelineDepth must be'],
    [{ publishBatchBytes: 0 }, 'publishBatchBytes must be'],
    [{ publishBatchBytes: Number.NaN }, 'publishBatchBytes must be'],
    [{ topics: { a: { retry: { minDelay: -1 } } } }, 'topics["a"].retry.minDelay must be'],
    [{ topics: { a: { maxParked: 1.5 } } }, 'topics["a"].maxParked must be'],
    [{ topics: { a: { retries: 1 } as never } }, 'unknown option "retries"'],
    [{ topics: { a: { retry: 7 as never } } }, 'topics["a"].retry must be an object, got 7 (number)'],
    [
      { topics: { a: { retry: { attempts: 1 } as never } } },
      'unknown option "attempts" of topics["a"].retry; the known',
    ],
    [{ topics: null as never }, 'topics must be an object'],
    [
      { retry: { maxDelay: 10, minDelay: 5 }, topics: { a: { retry: { minDelay: 20 } } } },
      'topics["a"].retry.maxDelay',
    ],
    [{ onEvent: 5 as never }, 'onEvent must be a function, got 5'],
    [{ classify: {} as never }, 'classify must be a function'],
  ])('refuses %j', (options, text) => {
    expect(() => new Messenger(storeOf(), scripted(), options)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining(text) as string }) as Error,
    );
  });
});

describe('classification', () => {
  test('goes by code, then by name, then by the cause', () => {
    const table = { EBROKEN: 'connection', TooLarge: 'permanent' } as const;
    expect(classify(Object.assign(new Error('x'), { code: 'EBROKEN' }), table)).toBe('connection');
    expect(classify(Object.assign(new Error('x'), { name: 'TooLarge' }), table)).toBe('permanent');
    expect(
      classify(new TypeError('failed', { cause: Object.assign(new Error('x'), { code: 'EBROKEN' }) }), table),
    ).toBe('connection');
    expect(classify(new Error('x'), table)).toBeUndefined();
    expect(classify(Object.assign(new Error('x'), { code: 'constructor', name: 'toString' }), table)).toBeUndefined();
    const cycle = new Error('x');
    cycle.cause = cycle;
    expect(classify(cycle, table)).toBeUndefined();
    for (const odd of [undefined, null, 5, 'text']) expect(classify(odd, table)).toBeUndefined();
  });

  test('treats a missing answer as a connection failure, unless the error says otherwise', () => {
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
    expect(failureKind(new TypeError('fetch failed', { cause: refused }))).toBe('connection');
    expect(failureKind(new PublishError('x', { kind: 'retryable', cause: refused }))).toBe('retryable');
    expect(failureKind(Object.assign(new Error('x'), { code: 'ECONNRESET' }))).toBe('retryable');
    expect(NETWORK_FAILURES['ENOTFOUND']).toBe('connection');
  });

  test('treats failures as alike if they differ only in ids, numbers and quoted values', () => {
    const alike = (a: string, b: string) =>
      signatureOf(new Error(a), 'permanent') === signatureOf(new Error(b), 'permanent');
    expect(alike('message 12 to "a" refused', 'message 7 to "b" refused')).toBe(true);
    expect(alike('order-9f3 refused', 'order-17a refused')).toBe(true);
    expect(alike('too large', 'malformed')).toBe(false);
    expect(signatureOf(new Error('x'), 'permanent')).not.toBe(signatureOf(new Error('x'), 'retryable'));
    expect(signatureOf(Object.assign(new Error('x'), { code: 5 }), 'permanent')).not.toBe(
      signatureOf(Object.assign(new Error('x'), { code: 6 }), 'permanent'),
    );
  });

  test.each([
    ['in batches', scriptedBatch],
    ['one at a time', scripted],
  ])('uses the function classify first, %s', async (_, publisherOf) => {
    const store = storeOf('a1', 'b1', 'c1');
    const publisher = publisherOf((text) => {
      if (text === 'a1') throw refusal('retryable', 'E42');
    });
    const relay = started(
      new Messenger(store, publisher, {
        ...FAST,
        concurrency: 1,
        classify: (error) => (error.message === 'E42' ? 'permanent' : undefined),
        errorLogger: recordingLogger(),
      }),
    );
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(store.dead).toEqual(['a1']);
  });

  test.each<[string, () => unknown, RegExp]>([
    ['throws', () => expect.unreachable('my mistake'), /classify failed: .*my mistake/],
    ['returns an unknown kind', () => 'fatal', /classify returned "fatal", which is ignored/],
  ])('logs and ignores a function classify that %s', async (_, mistake, text) => {
    const store = storeOf('a1', 'b1', 'c1');
    const publisher = scripted((each) => {
      if (each === 'a1') throw refusal('permanent');
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, classify: mistake as never, errorLogger }));
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(store.dead).toEqual(['a1']);
    expect(errorLogger.text()).toMatch(text);
  });
});

describe('events', () => {
  test('report the life of every message', async () => {
    const store = storeOf('a1', 'a2', 'b1', 'c1', 'd1');
    let failures = 1;
    const publisher = scriptedBatch((text) => {
      if (text === 'a1' && failures-- > 0) throw new Error('busy');
      if (text === 'b1') throw refusal('permanent', 'too large');
    });
    const events: MessengerEvent[] = [];
    const relay = started(
      new Messenger(store, publisher, {
        ...FAST,
        cleanUp: 3_600_000,
        errorLogger: recordingLogger(),
        onEvent: (event) => void events.push(event),
      }),
    );
    await until(() => store.isDone, 'all');
    await relay.stop();
    const of = (text: string) =>
      events.flatMap((event) => {
        if ('messages' in event) return event.messages.some((each) => textOf(each) === text) ? [event.type] : [];
        return 'message' in event && textOf(event.message) === text ? [event.type] : [];
      });
    expect(of('a1')).toEqual(['claimed', 'failed', 'parked', 'claimed', 'published']);
    expect(of('a2').filter((type) => type !== 'claimed')).toEqual(['parked', 'published']);
    expect(of('b1')).toEqual(['claimed', 'failed', 'dead']);
    expect(of('c1')).toEqual(['claimed', 'published']);
    expect(events.find(({ type }) => type === 'failed')).toMatchObject({ attempts: 1, kind: 'retryable' });
    expect(events.at(0)).toEqual({ type: 'leased', destination: 'default', partitions: [0] });
    expect(events.at(-1)).toEqual({ type: 'lease-lost', destination: 'default', partitions: [0] });
    expect(events).toContainEqual({ type: 'cleaned', destination: 'default', duration: expect.any(Number) as number });
    const published = events.find(({ type }) => type === 'published');
    expect(published).toMatchObject({ duration: expect.any(Number) as number });
  });

  test('tell retries from messages that are sent for the first time', async () => {
    const store = storeOf('a1', 'a2', 'b1');
    let failures = 1;
    const publisher = scriptedBatch((text) => {
      if (text === 'a1' && failures-- > 0) throw new Error('busy');
    });
    const claimed: [text: string, retries: boolean][] = [];
    const onEvent = (event: MessengerEvent) => {
      if (event.type === 'claimed') for (const each of event.messages) claimed.push([textOf(each), event.retries]);
    };
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger(), onEvent }));
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(claimed).toEqual([
      ['a1', false],
      ['a2', false],
      ['b1', false],
      ['a1', true],
      ['a2', true],
    ]);
  });

  test('report a lost lease with its reason, and the lease that is claimed again', async () => {
    const store = storeOf('a1');
    const events: MessengerEvent[] = [];
    const publisher = scripted();
    const relay = started(
      new Messenger(store, publisher, {
        ...FAST,
        errorLogger: recordingLogger(),
        onEvent: (event) => void events.push(event),
      }),
    );
    await until(() => store.isDone, 'a1');
    store.revoke();
    await until(() => store.opened === 2, 'another feed');
    await relay.stop();
    expect(events.filter(({ type }) => type.startsWith('lease'))).toMatchObject([
      { type: 'leased' },
      { type: 'lease-lost', error: { code: 'LEASE_LOST' } },
      { type: 'leased' },
      { type: 'lease-lost' },
    ]);
  });

  test('report which partitions a relay gave up and gained when it made room for others', async () => {
    const store = storeOf();
    const shares = [
      [0, 1, 2],
      [0, 1],
      [0, 1],
      [0, 1, 3],
    ];
    store.changeFeed = (feed) => ({
      ...feed,
      get unbalanced() {
        return shares.length > 1;
      },
      get partitions() {
        return shares[0]!;
      },
      rebalance: async () => void shares.shift(),
    });
    const events: MessengerEvent[] = [];
    const onEvent = (event: MessengerEvent) => void events.push(event);
    const relay = started(new Messenger(store, scripted(), { ...FAST, onEvent }));
    await until(() => shares.length === 1, 'the last share');
    await relay.stop();
    const destination = 'default';
    expect(events.slice(0, -1)).toEqual([
      { type: 'leased', destination, partitions: [0, 1, 2] },
      { type: 'lease-lost', destination, partitions: [2] },
      { type: 'leased', destination, partitions: [3] },
    ]);
  });

  test.each([
    ['throws', (): unknown => expect.unreachable('in the handler')],
    ['rejects', (): unknown => Promise.reject(new Error('in the handler'))],
  ])('ignore a handler that %s, and log its error once', async (_, onEvent) => {
    const store = storeOf('a1', 'a2', 'b1');
    const publisher = scripted();
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, onEvent, errorLogger }));
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(errorLogger.errors).toHaveLength(1);
    expect(errorLogger.text()).toMatch(/onEvent failed: .*in the handler/);
  });
});

describe('cleaning', () => {
  test('runs beside publishing, but never twice at once', async () => {
    const store = storeOf('a1');
    const slow = gate();
    let running = 0;
    let most = 0;
    const cleaned = vi.spyOn(store, 'deletePublishedByExpiration').mockImplementation(async () => {
      most = Math.max(most, ++running);
      await slow.opened;
      running -= 1;
    });
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { ...FAST, cleanUp: 0 }));
    await until(() => running === 1 && store.isDone, 'a1, while it cleans');
    store.add('a2');
    await until(() => store.isDone, 'a2');
    expect(running).toBe(1);
    slow.open();
    await until(() => cleaned.mock.calls.length > 3, 'more of it');
    await relay.stop();
    expect(most).toBe(1);
  });

  test('is stopped and awaited when the relay stops', async () => {
    const store = storeOf('a1');
    const slow = gate();
    let told: AbortSignal | undefined;
    vi.spyOn(store, 'deletePublishedByExpiration').mockImplementation(async (...args: unknown[]) => {
      told = (args[1] as { signal: AbortSignal }).signal;
      await slow.opened;
    });
    const relay = started(new Messenger(store, scripted(), { ...FAST, cleanUp: 0 }));
    await until(() => told !== undefined, 'cleaning');
    let ended = false;
    const stopping = relay.stop().then(() => (ended = true));
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
    expect([told?.aborted, ended]).toEqual([true, false]);
    slow.open();
    await stopping;
  });
});

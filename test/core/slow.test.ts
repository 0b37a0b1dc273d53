/** Calls that take long against what the others take: each delays its own key, and is waited for. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Messenger } from '../../src/core/relay/messenger.js';
import type { MessengerOptions } from '../../src/core/relay/options.js';
import { Pace } from '../../src/core/publish/pace.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import { systemClock } from '../../src/core/util/clock.js';
import { PlainStore } from '../support/plain-store.js';
import {
  ListFeedStore,
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

/** A publisher of which the calls of some texts are answered only when the test says so, and others in some milliseconds. */
function held(...texts: readonly string[]) {
  return heldWhile(1, ...texts);
}

function heldWhile(others: number, ...texts: readonly string[]) {
  const waiting = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const calls: string[] = [];
  const answer = (text: string): Promise<void> => {
    calls.push(text);
    if (!texts.includes(text) || waiting.has(text)) return new Promise((resolve) => setTimeout(resolve, others));
    return new Promise((resolve, reject) => waiting.set(text, { resolve, reject }));
  };
  return { answer, calls, of: (text: string) => waiting.get(text)! };
}

function relayOf(store: ListFeedStore | PlainStore, publisher: Publisher, options: MessengerOptions = {}) {
  const errorLogger = recordingLogger();
  const relay = started(new Messenger(store, publisher, { interval: 20, errorLogger, ...options }));
  return { ...relay, errorLogger };
}

const numbered = (key: string, from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `${key}${from + i}`);

/** Adds a message of some key every 20 ms. */
async function trickle(store: ListFeedStore, texts: readonly string[]): Promise<void> {
  for (const text of texts) {
    store.add(text);
    await vi.advanceTimersByTimeAsync(20);
  }
}

test('delays only the key of a slow call, goes on settling, and settles the call when it is answered', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, calls, of } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1', 's2']);
  await trickle(store, numbered('a', 2, 1_000));
  expect(store.cursor).toBeGreaterThan(900);
  expect([...store.parked.values()].map((each) => [textOf(each.message), each.attempts])).toEqual([
    ['s1', 0],
    ['s2', 0],
  ]);
  expect(calls.filter((text) => text.startsWith('s'))).toEqual(['s1']);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(store.isDone).toBe(true);
  expect(calls.filter((text) => text.startsWith('s'))).toEqual(['s1', 's2']);
  expect(relay.errorLogger.errors).toEqual([]);
  await relay.stop();
});

test.for([
  ['retryable', 1],
  ['connection', 0],
] as const)('treats a slow call that fails (%s) like any other failure', async ([kind, failures]) => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, calls, of } = held('s1');
  const failed: number[] = [];
  const relay = relayOf(store, scripted(answer), {
    onEvent: (event) => {
      if (event.type === 'failed') failed.push(event.attempts);
    },
  });
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 100), 's2']);
  of('s1').reject(refusal(kind));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(store.isDone).toBe(true);
  expect(failed).toHaveLength(failures);
  expect(calls.filter((text) => text.startsWith('s'))).toEqual(['s1', 's1', 's2']);
  await relay.stop();
});

test('fails an unanswered call at its timeout, and does not send its message again before', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, calls } = held('s1');
  const relay = relayOf(store, scripted(answer), { publishTimeout: 10_000 });
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 450)]);
  expect(calls.filter((text) => text === 's1')).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(store.isDone).toBe(true);
  expect(calls.filter((text) => text === 's1')).toHaveLength(2);
  expect(relay.errorLogger.text()).toContain('did not answer within 10000 ms');
  await relay.stop();
});

test('delays only the key of a slow call in a retry too', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  let tries = 0;
  const { answer, of } = held('s1', 'b1');
  const publisher = scripted((text) => {
    if ((text === 's1' || text === 'b1') && ++tries <= 2) throw refusal('retryable', `busy with ${text}`);
    return text === 'b1' ? undefined : answer(text);
  });
  const relay = relayOf(store, publisher);
  await trickle(store, ['a1', 's1', 'b1', ...numbered('a', 2, 200)]);
  expect(publisher.acknowledged).toContain('b1');
  expect([...store.parked.values()].map((each) => textOf(each.message))).toEqual(['s1']);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(2_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

test('parks all messages of a slow call of a batch publisher', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, of } = held('s1');
  const publisher: BatchPublisher = {
    ...scriptedBatch(),
    publishBatch: (messages) =>
      Promise.all(messages.map((each) => answer(textOf(each)).then((): PublishResult => ACKNOWLEDGED))),
  };
  const relay = relayOf(store, publisher);
  store.add('s1', 'b1');
  await vi.advanceTimersByTimeAsync(100);
  await trickle(store, [...numbered('a', 1, 300), 'b2']);
  await vi.advanceTimersByTimeAsync(200);
  expect(store.cursor).toBeGreaterThan(200);
  expect([...store.parked.values()].map((each) => textOf(each.message))).toEqual(['s1', 'b1', 'b2']);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

/** A batch publisher whose calls take as long as the slowest of their messages, and how many there were at once. */
function batches(answer: (text: string) => Promise<void>) {
  const calls = { now: 0, most: 0 };
  const publisher: BatchPublisher = {
    ...scriptedBatch(),
    async publishBatch(messages) {
      calls.now += 1;
      calls.most = Math.max(calls.most, calls.now);
      const result = (each: Promise<void>) =>
        each.then(
          (): PublishResult => ACKNOWLEDGED,
          (error: unknown): PublishResult => ({ acknowledged: false, error: error as Error }),
        );
      const results = await Promise.all(messages.map((each) => result(answer(textOf(each)))));
      calls.now -= 1;
      return results;
    },
  };
  return { publisher, calls };
}

test('gives a batch publisher at most pipelineDepth calls at once, including slow calls, if each page is one call', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  // Longer than until the next message: pages of one, several at once.
  const { answer, of } = heldWhile(70, 's1');
  const { publisher, calls } = batches(answer);
  const relay = relayOf(store, publisher, { pipelineDepth: 2 });
  store.add('s1');
  await vi.advanceTimersByTimeAsync(100);
  await trickle(store, numbered('-', 0, 200));
  expect(store.parked.size).toBe(1);
  expect(calls.most).toBe(2);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

test('does not open the circuit when all messages of a slow call fail alike, because others were acknowledged', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const slow = ['s1', 't1', 'u1', 'v1', 'w1', 'x1'];
  const { answer, of } = held(...slow);
  const { publisher } = batches(answer);
  const paused: string[] = [];
  const relay = relayOf(store, publisher, {
    onEvent: (event) => {
      if (event.type === 'paused') paused.push(event.reason);
    },
  });
  store.add(...slow);
  await vi.advanceTimersByTimeAsync(100);
  await trickle(store, numbered('a', 1, 300));
  for (const text of slow) of(text).reject(refusal('retryable', 'busy'));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(store.isDone).toBe(true);
  expect(paused).toEqual([]);
  await relay.stop();
});

test('parks the messages of a slow call until that call must have ended, whenever its page was sent', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, of } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1']);
  const dues: number[] = [];
  for (const text of numbered('a', 2, 200)) {
    await trickle(store, [text]);
    const found = [...store.parked.values()].find((each) => textOf(each.message) === 's1');
    if (found !== undefined && dues.length === 0) dues.push(found.retryIn ?? 0);
  }
  expect(dues).toEqual([30_000]);
  of('s1').resolve();
  await relay.stop();
});

test('counts slow calls as in flight, and reads no more at the limit', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const slow = numbered('-', 0, 12);
  const { answer, calls, of } = held(...slow);
  const relay = relayOf(store, scripted(answer), { publishBatchSize: 4, pipelineDepth: 2, concurrency: 100 });
  for (const text of slow) await trickle(store, [text, ...numbered('a', Number(text.slice(1)) * 60, 60)]);
  const outstanding = [...store.parked.values()].filter((each) => each.outstanding === true);
  // Of the fifth nobody knows whether it is slow: no room is left for a page that would tell.
  expect(outstanding.length).toBe(4);
  expect(calls.filter((text) => text.startsWith('-'))).toHaveLength(5);
  for (const text of slow.slice(0, 5)) of(text).resolve();
  await vi.advanceTimersByTimeAsync(100);
  expect(calls.filter((text) => text.startsWith('-')).length).toBeGreaterThan(5);
  for (let i = 5; i < 12; i++) {
    await vi.advanceTimersByTimeAsync(2_000);
    of(slow[i]!).resolve();
  }
  await vi.advanceTimersByTimeAsync(5_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

test('waits for a slow call when the relay is stopped', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer, of } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 100)]);
  let isOver = false;
  const stopped = relay.stop().then(() => (isOver = true));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(isOver).toBe(false);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(1_000);
  await stopped;
  expect(store.isDone).toBe(true);
});

test('waits no longer than stopTimeout for a slow call that is never answered', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 100)]);
  const stopped = relay.stop();
  await vi.advanceTimersByTimeAsync(10_000);
  await stopped;
  expect(store.isDone).toBe(false);
});

test('stops waiting for a slow call when the lease is lost', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  const { answer } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 100)]);
  store.revoke();
  await vi.advanceTimersByTimeAsync(2_000);
  expect(store.opened).toBe(2);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

test('gives up no partitions before a slow call is answered, and goes on meanwhile', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  let unbalanced = false;
  let rebalanced = 0;
  store.changeFeed = (feed) => ({
    ...feed,
    get unbalanced() {
      return unbalanced;
    },
    rebalance: async () => {
      unbalanced = false;
      rebalanced += 1;
      await feed.rebalance();
    },
  });
  const { answer, calls, of } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await trickle(store, ['a1', 's1', ...numbered('a', 2, 200)]);
  expect([...store.parked.values()].map((each) => textOf(each.message))).toEqual(['s1']);
  unbalanced = true;
  await trickle(store, numbered('b', 1, 100));
  expect(rebalanced).toBe(0);
  expect(calls.filter((text) => text.startsWith('b')).length).toBeGreaterThan(90);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(rebalanced).toBe(1);
  expect(store.isDone).toBe(true);
  await relay.stop();
});

test('does not hold up a custom store either', async () => {
  vi.useFakeTimers();
  const store = new PlainStore();
  const { answer, calls, of } = held('s1');
  const relay = relayOf(store, scripted(answer));
  await put(store, 's1', 's2');
  for (const text of numbered('a', 1, 300)) {
    await put(store, text);
    await vi.advanceTimersByTimeAsync(20);
  }
  expect((await unpublished(store)).filter((text) => text.startsWith('s'))).toEqual(['s1', 's2']);
  expect((await unpublished(store)).length).toBeLessThan(20);
  of('s1').resolve();
  await vi.advanceTimersByTimeAsync(2_000);
  expect(await unpublished(store)).toEqual([]);
  expect(calls.filter((text) => text.startsWith('s'))).toEqual(['s1', 's2']);
  await relay.stop();
});

describe('a slow call', () => {
  const results = [ACKNOWLEDGED];

  async function isSlow(pace: Pace, after: number, isAnswered = true): Promise<boolean> {
    const answer = pace.patiently(new Promise(() => undefined), 1);
    let told = false;
    void answer.then(() => (told = true));
    if (isAnswered) await pace.patiently(Promise.resolve(results), 1);
    await vi.advanceTimersByTimeAsync(after);
    return told;
  }

  test('takes at least a second where calls usually take less than a tenth of a second', async () => {
    vi.useFakeTimers();
    const pace = new Pace({ clock: systemClock, timeout: 30_000 });
    expect([await isSlow(pace, 990), await isSlow(pace, 1_010)]).toEqual([false, true]);
  });

  test('takes ten times as long as usual, or half of the timeout if that is less', async () => {
    vi.useFakeTimers();
    const pace = new Pace({ clock: systemClock, timeout: 30_000 });
    const take = async (ms: number) => {
      const call = pace.patiently(
        new Promise((resolve) =>
          setTimeout(() => {
            resolve(results);
          }, ms),
        ),
        1,
      );
      await vi.advanceTimersByTimeAsync(ms);
      await call;
    };
    await take(300);
    expect(pace.patience).toBe(3_000);
    await take(20_000);
    expect(pace.patience).toBeCloseTo(3_300);
    for (let i = 0; i < 60; i++) await take(20_000);
    expect(pace.patience).toBe(15_000);
  });

  test('does not count as slow until a later call is acknowledged, because the broker itself may be slow', async () => {
    vi.useFakeTimers();
    const pace = new Pace({ clock: systemClock, timeout: 30_000 });
    const slow = isSlow(pace, 20_000, false);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(await slow).toBe(false);
    const again = isSlow(pace, 0);
    await vi.advanceTimersByTimeAsync(1);
    expect(await again).toBe(false);
    expect(vi.getTimerCount()).toBeLessThanOrEqual(1);
  });
});

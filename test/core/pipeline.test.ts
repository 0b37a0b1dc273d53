/** Pages in flight: how many at once, in what order they are sent and settled, and what a crash repeats. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { Feed, FeedOptions } from '../../src/core/contracts/feed.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import type { MessengerOptions } from '../../src/core/relay/options.js';
import type { BatchPublisher, Publisher } from '../../src/core/contracts/publisher.js';
import type { FeedStore } from '../../src/core/contracts/store.js';
import { MessengerError } from '../../src/core/errors.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import {
  FAST,
  ListFeedStore,
  message,
  recordingLogger,
  refusal,
  scripted,
  scriptedBatch,
  seeded,
  started,
  textOf,
} from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `-${i}`);

async function turns(count = 200): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

const storeOf = (...texts: readonly string[]): ListFeedStore => {
  const store = new ListFeedStore();
  store.add(...texts);
  return store;
};

describe.each([1, 2, 3, 7])('with a depth of %i', (pipelineDepth) => {
  test('has exactly that many pages published but not settled, and a crash repeats only these pages', async () => {
    const size = 4;
    const texts = numbered(60);
    const store = storeOf(...texts);
    const never = new Promise(() => undefined);
    let settled = 0;
    // After two settlements the store hangs, and with it the relay.
    store.fault = (call) => {
      if (call === 'settled') settled += 1;
      return call === 'settle' && settled === 2 ? never : undefined;
    };
    const first = scripted();
    void new Messenger(store, first, { ...FAST, publishBatchSize: size, pipelineDepth }).start();
    await until(() => first.sent.length >= size * (2 + pipelineDepth), 'a full pipeline');
    await turns();
    expect(first.sent).toHaveLength(size * (2 + pipelineDepth));
    store.revoke();
    store.fault = () => undefined;
    const second = scripted();
    const relay = started(new Messenger(store, second, { ...FAST, publishBatchSize: size, pipelineDepth }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    const twice = second.sent.filter((text) => first.sent.includes(text));
    expect(twice).toEqual(texts.slice(2 * size, size * (2 + pipelineDepth)));
    expect(new Set([...first.sent, ...second.sent]).size).toBe(60);
  });

  test('counts retries as in flight', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'b1', 'c1', 'd1', 'e1', 'f1');
    const open = new Set<string>();
    let most = 0;
    let failing = true;
    const publisher = scriptedBatch((text) => {
      if (failing && text < 'c') throw refusal('retryable', text === 'a1' ? 'one' : 'another');
    });
    store.fault = (call) => {
      if (call === 'settled') open.clear();
    };
    const counting: BatchPublisher = {
      ...publisher,
      publishBatch: async (messages, options) => {
        for (const each of messages) open.add(textOf(each));
        most = Math.max(most, open.size);
        return publisher.publishBatch(messages, options);
      },
    };
    const relay = started(
      new Messenger(store, counting, { publishBatchSize: 2, pipelineDepth, errorLogger: recordingLogger() }),
    );
    await vi.advanceTimersByTimeAsync(100);
    failing = false;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(store.isDone).toBe(true);
    expect(most).toBeLessThanOrEqual(2 * pipelineDepth);
    expect(publisher.sent.filter((text) => text === 'a1').length).toBeGreaterThan(1);
    await relay.stop();
  });
});

test('publishes and settles a page before it publishes the next, with a depth of 1', async () => {
  const store = storeOf(...numbered(6));
  const order: string[] = [];
  store.fault = (call) => {
    if (call === 'settled') order.push('settled');
  };
  const publisher = scriptedBatch((text) => void order.push(text));
  const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 2, pipelineDepth: 1 }));
  await until(() => store.isDone, 'all');
  await relay.stop();
  expect(order).toEqual(['-0', '-1', 'settled', '-2', '-3', 'settled', '-4', '-5', 'settled']);
});

describe('pages that are not full', () => {
  /** A store of one message after the other, each once the one before is acknowledged, which tells of settlements. */
  async function oneByOne(options: Partial<MessengerOptions>, count: number) {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    const settledAt: number[] = [];
    store.fault = (call) => {
      if (call === 'settled') settledAt.push(performance.now());
    };
    const publisher = scriptedBatch(() => undefined);
    const relay = started(new Messenger(store, publisher, { ...FAST, interval: 1, ...options }));
    for (let n = 1; n <= count; n++) {
      store.add(`-${n}`);
      while (publisher.acknowledged.length < n) await vi.advanceTimersByTimeAsync(0.5);
    }
    return { store, settledAt, publisher, relay };
  }

  test('are settled together every fifty milliseconds, but a lone message is settled at once', async () => {
    const { store, settledAt, relay } = await oneByOne({ publishBatchSize: 100 }, 120);
    await vi.advanceTimersByTimeAsync(110);
    expect(store.isDone).toBe(true);
    const moments = [...new Set(settledAt)];
    expect(settledAt).toHaveLength(120);
    expect(moments.length).toBeLessThan(120 / 20);
    const gaps = moments.slice(1).map((moment, i) => moment - moments[i]!);
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(49);
    expect(Math.max(...gaps)).toBeLessThan(52);
    store.add('alone');
    await vi.advanceTimersByTimeAsync(2);
    expect(store.isDone).toBe(true);
    await relay.stop();
  });

  test('are settled as soon as they add up to a full page, or no more fit in flight', async () => {
    for (const [publishBatchSize, pipelineDepth, most] of [
      [3, 4, 3],
      [100, 1, 1],
    ] as const) {
      const { store, settledAt, publisher, relay } = await oneByOne({ publishBatchSize, pipelineDepth }, 9);
      await vi.advanceTimersByTimeAsync(0.5);
      expect(publisher.acknowledged.length - settledAt.length).toBeLessThan(most);
      await relay.stop();
      expect(store.isDone).toBe(true);
      vi.useRealTimers();
    }
  });

  test('are settled at once when the relay is stopped', async () => {
    const { store, relay } = await oneByOne({ publishBatchSize: 100 }, 5);
    const { length } = store.log;
    expect(store.cursor).toBeLessThan(length);
    const before = performance.now();
    await relay.stop();
    expect(store.cursor).toBe(length);
    expect(performance.now()).toBe(before);
  });

  test('make no more calls at once than full pages', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    const broker = gate();
    const publisher = scriptedBatch(() => broker.opened);
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 100, pipelineDepth: 3 }));
    for (let n = 0; n < 20; n++) {
      store.add(`-${n}`);
      await vi.advanceTimersByTimeAsync(2);
    }
    // Beside these, what is parked has one of the places: it is looked for.
    expect(publisher.calls.length).toBeGreaterThan(1);
    expect(publisher.calls.length).toBeLessThanOrEqual(3);
    broker.open();
    await vi.advanceTimersByTimeAsync(50);
    expect(store.isDone).toBe(true);
    await relay.stop();
  });

  test('are counted by their messages, so that a crash repeats no more than with full pages', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    const never = new Promise(() => undefined);
    store.fault = (call) => (call === 'settle' ? never : undefined);
    const publisher = scripted();
    void new Messenger(store, publisher, { ...FAST, interval: 1, publishBatchSize: 4, pipelineDepth: 3 }).start();
    for (let n = 0; n < 60; n++) {
      store.add(`-${n}`);
      await vi.advanceTimersByTimeAsync(1);
    }
    await vi.advanceTimersByTimeAsync(100);
    expect(publisher.sent.length).toBeGreaterThan(4);
    expect(publisher.sent.length).toBeLessThanOrEqual(12);
  });
});

describe('two pages in flight', () => {
  test('hold back a key of the second page until the first page is done with it, and send the rest', async () => {
    const store = storeOf('a1', 'b1', 'a2', 'c1');
    const slow = gate();
    const publisher = scriptedBatch((text) => (text === 'a1' ? slow.opened : undefined));
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 2 }));
    await until(() => publisher.acknowledged.includes('c1'), 'c1, past a1');
    await turns();
    expect(publisher.calls).toEqual([['a1', 'b1'], ['c1']]);
    // Settled in order: what came later and was done earlier waits.
    expect(store.cursor).toBe(0);
    slow.open();
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.calls).toEqual([['a1', 'b1'], ['c1'], ['a2']]);
  });

  test('park a key in the second page without sending it if the first page parks it', async () => {
    const store = storeOf('a1', 'b1', 'a2', 'c1');
    const slow = gate();
    let failures = 1;
    const publisher = scriptedBatch(async (text) => {
      if (text !== 'a1' || failures-- <= 0) return;
      await slow.opened;
      throw new Error('busy');
    });
    const relay = started(
      new Messenger(store, publisher, { ...FAST, publishBatchSize: 2, errorLogger: recordingLogger() }),
    );
    await until(() => publisher.acknowledged.includes('c1'), 'c1');
    slow.open();
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.acknowledged.filter((text) => text.startsWith('a'))).toEqual(['a1', 'a2']);
    expect(publisher.sent.indexOf('a2')).toBeGreaterThan(publisher.sent.lastIndexOf('a1'));
  });

  test('hold back newer messages of a key that drains while another page has more of the key', async () => {
    const store = storeOf('a1', 'x1', 'a2', 'y1', 'a3', 'z1');
    const slow = gate();
    let failures = 1;
    const publisher = scriptedBatch(async (text) => {
      if (text === 'a1' && failures-- > 0) throw new Error('busy');
      // Holds up the settlement of the page that has parked a2, while a1 is tried again.
      if (text === 'y1') await slow.opened;
    });
    const relay = started(
      new Messenger(store, publisher, {
        ...FAST,
        publishBatchSize: 2,
        pipelineDepth: 3,
        errorLogger: recordingLogger(),
      }),
    );
    await until(() => publisher.acknowledged.includes('a1'), 'a1 again');
    await turns();
    expect(publisher.sent).not.toContain('a3');
    slow.open();
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.acknowledged.filter((text) => text.startsWith('a'))).toEqual(['a1', 'a2', 'a3']);
  });

  test('neither settle nor send on the later page if settling the first fails', async () => {
    const store = storeOf('a1', 'b1', 'a2', 'a3');
    const slow = gate();
    let failing = true;
    const cursors: number[] = [];
    store.fault = (call) => {
      if (call === 'open') cursors.push(store.cursor);
      if (call !== 'settle' || !failing) return;
      failing = false;
      throw new Error('connection reset');
    };
    const publisher = scriptedBatch((text) => (text === 'a2' && store.opened === 1 ? slow.opened : undefined));
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 2, errorLogger }));
    await until(() => publisher.calls.length === 2, 'the second page');
    await turns();
    slow.open();
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(cursors).toEqual([0, 0]);
    expect(publisher.calls.slice(0, 3)).toEqual([['a1', 'b1'], ['a2'], ['a1', 'b1']]);
    expect(errorLogger.text()).toMatch(/^the datastore fails: connection reset, trying again in \d+ ms$/);
  });

  test('settle every acknowledged message in order on a stop, even if an earlier page was not begun', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'a2', 'b1', 'b2', 'c1', 'c2');
    const slow = gate();
    const down = gate();
    const publisher = scriptedBatch(async (text) => {
      if (text === 'c1') await slow.opened;
      else await down.opened.then(() => Promise.reject(refusal('connection', 'no broker')));
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { publishBatchSize: 2, pipelineDepth: 3, errorLogger }));
    await vi.advanceTimersByTimeAsync(10);
    expect(publisher.calls).toEqual([['a1'], ['b1'], ['c1']]);
    down.open();
    await vi.advanceTimersByTimeAsync(10);
    const ended = relay.stop();
    slow.open();
    await ended;
    expect(publisher.acknowledged).toEqual(['c1']);
    expect(store.cursor).toBe(6);
    expect([...store.parked.values()].map((each) => textOf(each.message))).toEqual(['a1', 'a2', 'b1', 'b2', 'c2']);
    expect([...store.parked.values()].every(({ attempts }) => attempts === 0)).toBe(true);
  });
});

describe('publishBatchBytes', () => {
  test('cuts a page into calls in order per key, and sends a larger message alone', async () => {
    const store = new ListFeedStore();
    const size = (text: string, bytes: number) => message(text, { metadata: { pad: 'x'.repeat(bytes - 60) } });
    store.log.push(size('a1', 400), size('b1', 400), size('a2', 100), size('c1', 5_000), size('d1', 100));
    const publisher = scriptedBatch(() => undefined, { batchKeepsKeyOrder: true });
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchBytes: 1_000 }));
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.calls).toEqual([['a1', 'b1', 'a2', 'd1'], ['c1']]);
  });

  test('never lets a small message overtake a large one of its key', async () => {
    const store = new ListFeedStore();
    const size = (text: string, bytes: number) => message(text, { metadata: { pad: 'x'.repeat(bytes - 60) } });
    store.log.push(size('b1', 600), size('a1', 600), size('a2', 100));
    const publisher = scriptedBatch(() => undefined, { batchKeepsKeyOrder: true });
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchBytes: 1_000 }));
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['b1', 'a1', 'a2']);
    expect(publisher.calls).toHaveLength(2);
  });
});

test('sends no more at once to a publisher without a batch form if several pages are in flight', async () => {
  const store = storeOf(...numbered(40));
  const broker = gate();
  const publisher = scripted(() => broker.opened);
  const relay = started(
    new Messenger(store, publisher, { ...FAST, publishBatchSize: 5, pipelineDepth: 4, concurrency: 7 }),
  );
  await until(() => publisher.sent.length === 7, 'seven in flight');
  await turns();
  expect(publisher.sent).toHaveLength(7);
  broker.open();
  await until(() => store.isDone, 'all');
  await relay.stop();
});

describe('a lease that has expired by the clock', () => {
  /** A store whose feed finds out only when it is asked, as after a process was frozen. */
  function frozen(inner: ListFeedStore): FeedStore & { over: boolean } {
    const self = {
      over: false,
      messages: () => inner.messages(),
      published: () => inner.published(),
      deletePublishedByExpiration: () => inner.deletePublishedByExpiration(),
      async openFeed(options: FeedOptions): Promise<Feed | null> {
        const feed = await inner.openFeed(options);
        const lost = new AbortController();
        return (
          feed && {
            ...feed,
            get lost() {
              if (self.over && !lost.signal.aborted) {
                self.over = false;
                inner.revoke();
                lost.abort(new MessengerError('LEASE_LOST', 'by the clock'));
              }
              return lost.signal;
            },
          }
        );
      },
    };
    return self;
  }

  test.each([
    ['in batches', scriptedBatch],
    ['one at a time', scripted],
  ])('is noticed before each request, %s', async (_, publisherOf) => {
    const inner = storeOf('a1', 'a2', 'a3');
    const store = frozen(inner);
    const publisher = publisherOf((text) => {
      if (text === 'a1' && inner.opened === 1) store.over = true;
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => inner.isDone, 'all');
    await relay.stop();
    // Not a2 under the old lease.
    expect(publisher.sent).toEqual(['a1', 'a1', 'a2', 'a3']);
  });

  test('is noticed in retries too', async () => {
    const inner = storeOf('a1', 'a2');
    const store = frozen(inner);
    let failures = 1;
    const publisher = scriptedBatch((text) => {
      if (text !== 'a1') return;
      if (failures-- > 0) throw new Error('busy');
      if (inner.opened === 1) store.over = true;
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => inner.isDone, 'all');
    await relay.stop();
    expect(publisher.sent).toEqual(['a1', 'a1', 'a1', 'a2']);
  });

  test('is reported as the reason if a call of the store fails first', async () => {
    const inner = storeOf();
    const store = frozen(inner);
    let reads = 0;
    const openFeed = store.openFeed.bind(store);
    store.openFeed = async (options) => {
      const feed = await openFeed(options);
      if (feed === null || inner.opened > 1) return feed;
      const read: Feed['read'] = (call) => {
        // Not while others are about to ask for the lease.
        if ((reads += 1) < 3) return feed.read(call);
        store.over = true;
        return Promise.reject(new Error('the server has ended the connection'));
      };
      return Object.defineProperty({ ...feed, read }, 'lost', { get: () => feed.lost });
    };
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, scriptedBatch(), { ...FAST, errorLogger }));
    await until(() => inner.opened > 1, 'another lease');
    await relay.stop();
    expect(errorLogger.errors).toMatchObject([{ code: 'LEASE_LOST', message: 'by the clock' }]);
  });
});

test('gives up partitions only while nothing is in flight', async () => {
  const store = storeOf(...numbered(30));
  const random = seeded(7);
  /** Texts that were sent, and are neither settled nor parked. */
  const unsettled = new Set<string>();
  let rebalanced = 0;
  store.changeFeed = (feed) => ({
    ...feed,
    get unbalanced() {
      return random() < 0.5;
    },
    rebalance: async () => {
      expect([...unsettled]).toEqual([]);
      rebalanced += 1;
      await turns(3);
      expect([...unsettled]).toEqual([]);
      await feed.rebalance();
    },
    settle: async (page, toPark) => {
      await turns(3);
      await feed.settle(page, toPark);
      for (const each of page.messages) unsettled.delete(textOf(each));
    },
  });
  const failed = new Set<string>();
  const publisher = scripted(async (text) => {
    unsettled.add(text);
    await turns(1);
    if (random() > 0.3 || failed.has(text)) return;
    failed.add(text);
    throw new Error(`busy with ${text.replace('-', 'nr ')}`);
  });
  const relay = started(
    new Messenger(store, publisher, { ...FAST, publishBatchSize: 3, pipelineDepth: 3, errorLogger: recordingLogger() }),
  );
  await until(() => store.isDone, 'all');
  await relay.stop();
  expect(rebalanced).toBeGreaterThan(3);
});

describe('gives up partitions as soon as the calls that have begun are answered', () => {
  /** A relay with a full pipeline that is told of another one, and every call that it made. */
  async function handingOver(publisherOf: (answer: (text: string) => Promise<void>) => Publisher, texts: string[]) {
    vi.useFakeTimers();
    const store = storeOf(...texts);
    let unbalanced = false;
    let sentBefore: string[] | undefined;
    const sent: string[] = [];
    const waiting = new Map<string, () => void>();
    store.changeFeed = (feed) => ({
      ...feed,
      get unbalanced() {
        return unbalanced;
      },
      rebalance: async () => {
        unbalanced = false;
        sentBefore = [...sent];
        await feed.rebalance();
      },
    });
    const publisher = publisherOf((text) => {
      sent.push(text);
      return sentBefore === undefined ? new Promise((resolve) => waiting.set(text, resolve)) : Promise.resolve();
    });
    const relay = started(
      new Messenger(store, publisher, {
        ...FAST,
        publishBatchSize: 4,
        pipelineDepth: 3,
        concurrency: 2,
      }),
    );
    await vi.advanceTimersByTimeAsync(100);
    expect(waiting.size).toBe(2);
    unbalanced = true;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sentBefore).toBeUndefined();
    // One after the other, so that there would be room for more in between.
    for (const answer of [...waiting.values()]) {
      answer();
      await vi.advanceTimersByTimeAsync(100);
    }
    expect(sentBefore).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(store.isDone).toBe(true);
    await relay.stop();
    return sent;
  }

  const single = (answer: (text: string) => Promise<void>): Publisher => scripted(answer);
  /** A call never holds two messages of one key, nor begins before those of earlier pages: of two keys it holds two. */
  const batch = (answer: (text: string) => Promise<void>): Publisher => {
    const publisher = scriptedBatch();
    return {
      ...publisher,
      publishBatch: async (messages, options) => {
        await Promise.all(messages.map((each) => answer(textOf(each))));
        return publisher.publishBatch(messages, options);
      },
    } as BatchPublisher;
  };

  test.for([
    ['messages without a key', single, numbered(30)],
    ['messages of few keys', single, Array.from({ length: 30 }, (_, i) => `${'abc'[i % 3]!}${i}`)],
    ['a batch publisher, between its calls', batch, Array.from({ length: 30 }, (_, i) => `${'ab'[i % 2]!}${i}`)],
  ] as const)('%s', async ([, publisherOf, texts]) => {
    const sent = await handingOver(publisherOf, [...texts]);
    expect(sent.toSorted()).toEqual(texts.toSorted());
    for (const key of 'abc') {
      const ofKey = (all: readonly string[]) => all.filter((text) => text.startsWith(key));
      expect(ofKey(sent)).toEqual(ofKey(texts));
    }
  });
});

test('reads no more if the relay is stopped while partitions change hands', async () => {
  const store = storeOf('-1');
  const handedOver = gate();
  let isHandingOver = false;
  let reads = 0;
  store.changeFeed = (feed) => ({
    ...feed,
    unbalanced: true,
    rebalance: () => {
      isHandingOver = true;
      return handedOver.opened;
    },
    read: (call) => {
      reads += 1;
      return feed.read(call);
    },
  });
  const relay = started(new Messenger(store, scripted(), { ...FAST, errorLogger: recordingLogger() }));
  await until(() => isHandingOver, 'a change of hands');
  const stopping = relay.stop();
  handedOver.open();
  await stopping;
  expect(reads).toBe(0);
});

test('gives up partitions while the broker fails, and releases the messages that wait for the broker', async () => {
  vi.useFakeTimers();
  const store = storeOf(...numbered(30));
  let unbalanced = false;
  let rebalanced = 0;
  store.changeFeed = (feed) => ({
    ...feed,
    get unbalanced() {
      return unbalanced;
    },
    rebalance: async () => {
      rebalanced += 1;
      unbalanced = false;
      await feed.rebalance();
    },
    // A store that can be aborted: that is not a failure of it.
    retries: async (options) => {
      const { signal } = options!;
      if (unbalanced && rebalanced === 0) {
        await new Promise((_, reject) => {
          signal!.addEventListener('abort', () => {
            reject(new Error('aborted', { cause: signal!.reason }));
          });
        });
      }
      return feed.retries(options);
    },
  });
  let down = true;
  const publisher = scripted(() => {
    if (down) throw refusal('connection', 'no broker');
  });
  const errorLogger = recordingLogger();
  const relay = started(new Messenger(store, publisher, { publishBatchSize: 3, errorLogger }));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(store.opened).toBe(1);
  unbalanced = true;
  await vi.advanceTimersByTimeAsync(2_000);
  expect(rebalanced).toBe(1);
  down = false;
  await vi.advanceTimersByTimeAsync(70_000);
  expect(store.isDone).toBe(true);
  await relay.stop();
  expect(errorLogger.errors.filter(({ message }) => !message.includes('no broker'))).toEqual([]);
});

/** `publish()` again and again, as a job does: what fails does not keep the rest, and nothing goes round for ever. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { MessengerError, PublishError } from '../../src/core/errors.js';
import type { FeedOptions } from '../../src/core/contracts/feed.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { publishPage } from '../../src/core/publish/page.js';
import { NONE_EARLIER } from '../../src/core/publish/types.js';
import type { BatchPublisher, Publisher } from '../../src/core/contracts/publisher.js';
import { systemClock, type Clock } from '../../src/core/util/clock.js';
import { withDeadline } from '../../src/core/util/async.js';
import { PlainStore } from '../support/plain-store.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { until } from '../../src/testing/conformance/assert.js';
import { newDatabase } from '../support/database.js';
import {
  FAST,
  ListFeedStore,
  plainStore,
  message,
  pageOptions,
  recordingLogger,
  refusal,
  scripted,
  scriptedBatch,
  started,
  textOf,
  unpublished,
  type Answer,
  type Scripted,
} from './scripted.js';

const publishers: [string, (answer: Answer) => (Publisher | BatchPublisher) & Scripted][] = [
  ['one at a time', scripted],
  ['in batches', scriptedBatch],
];

/** Calls `publish()` so often; returns what each call came to. */
async function calls(messenger: Messenger, times: number): Promise<(number | PublishError)[]> {
  const results: (number | PublishError)[] = [];
  for (let n = 0; n < times; n++) {
    results.push(await messenger.publish().catch((error: unknown) => error as PublishError));
  }
  return results;
}

/** The kinds of all failures that a call was rejected with. */
function kindsOf(result: number | PublishError | undefined): string[] {
  if (!(result instanceof PublishError)) return [];
  return ((result.cause as AggregateError).errors as PublishError[]).map(({ kind }) => kind);
}

const HEAD = ['bad1', 'worse1'];
const GOOD = ['-1', 'a1', '-2', 'a2', 'b1', '-3'];

describe.each(publishers)('messages that fail for their own reasons before others, sent %s', (_, publisherOf) => {
  const failing = () => {
    const state = { broken: true };
    const publisher = publisherOf((text) => {
      if (state.broken && HEAD.includes(text)) throw refusal('retryable', `${text} is refused`);
    });
    return { state, publisher };
  };
  const options = { publishBatchSize: 2, retry: { minDelay: 3_600_000, maxDelay: 3_600_000 } };

  describe('in PostgreSQL', () => {
    let pool: pg.Pool;
    let store: PostgresStore;
    beforeAll(async () => {
      pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 4 });
      store = new PostgresStore(pool);
      await store.migrate();
    });
    afterAll(() => pool.end());

    test('are parked while the others are published within a few calls', async () => {
      const client = await pool.connect();
      await client.query('BEGIN');
      await store.add(
        client,
        [...HEAD, ...GOOD].map((text) => message(text)),
      );
      await client.query('COMMIT');
      client.release();
      const { publisher, state } = failing();
      const messenger = new Messenger(store, publisher, options);
      const [first, ...rest] = await calls(messenger, 5);
      expect(kindsOf(first)).toEqual(['retryable', 'retryable']);
      expect(rest).toEqual([2, 2, 2, 0]);
      expect(publisher.acknowledged).toEqual(GOOD);
      expect(publisher.sent.slice(0, 2)).toEqual(HEAD);
      expect(publisher.sent).toHaveLength(HEAD.length + GOOD.length);
      // When they are due, and the broker takes them, they go too.
      state.broken = false;
      await pool.query("UPDATE messenger.parked SET next_at = now() - interval '1 second'");
      expect(await calls(messenger, 2)).toEqual([2, 0]);
      expect(await store.messages(10)).toEqual([]);
      await store.close();
    });
  });

  test('are each logged every time in memory, and nothing is lost', async () => {
    const store = await plainStore(...HEAD, ...GOOD);
    const { publisher, state } = failing();
    const messenger = new Messenger(store, publisher, options);
    // A plain store lists what failed first, and a call remembers nothing of the one before.
    for (const result of await calls(messenger, 3)) expect(kindsOf(result)).toEqual(['retryable', 'retryable']);
    expect(publisher.sent).toEqual([...HEAD, ...HEAD, ...HEAD]);
    expect(await unpublished(store)).toEqual([...HEAD, ...GOOD]);
    // A page that is larger than what fails reaches the others.
    expect(kindsOf((await calls(new Messenger(store, publisher, { ...options, publishBatchSize: 5 }), 1))[0])).toEqual([
      'retryable',
      'retryable',
    ]);
    expect(publisher.acknowledged).toEqual(GOOD.slice(0, 3));
    state.broken = false;
    expect(await calls(messenger, 4)).toEqual([2, 2, 1, 0]);
    expect(await unpublished(store)).toEqual([]);
  });
});

describe('a lease that is lost before anything is sent', () => {
  const LOST = new MessengerError('LEASE_LOST', 'the lease was taken away');

  /** A store that loses the lease as soon as it has read a page, the first time. */
  class LosingStore extends ListFeedStore {
    losing = true;
    override async openFeed(options: FeedOptions) {
      const feed = await super.openFeed(options);
      if (feed === null) return null;
      return {
        ...feed,
        read: async () => {
          const page = await feed.read();
          if (this.losing) this.revoke();
          this.losing = false;
          return page;
        },
      };
    }
  }

  test.each(publishers)('stops publish() from sending anything, %s', async (_, publisherOf) => {
    const store = new LosingStore();
    store.add('a1', 'b1');
    const publisher = publisherOf(() => undefined);
    const messenger = new Messenger(store, publisher);
    await expect(messenger.publish()).rejects.toMatchObject({ code: 'LEASE_LOST' });
    expect(publisher.sent).toEqual([]);
    expect(store.cursor).toBe(0);
    expect(await messenger.publish()).toBe(2);
  });

  test.each(publishers)('stops a relay from sending until it has claimed again, %s', async (_, publisherOf) => {
    const store = new LosingStore();
    store.add('a1', 'b1');
    const openedWhenSent: number[] = [];
    const publisher = publisherOf(() => void openedWhenSent.push(store.opened));
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    expect(openedWhenSent).toEqual([2, 2]);
  });

  test('stops a page from being sent', async () => {
    const publisher = scriptedBatch();
    const page = { messages: [message('a1'), message('a2')] };
    const failures: Error[] = [];
    const options = pageOptions(publisher, {
      lost: AbortSignal.abort(LOST),
      onFailure: (error) => void failures.push(error),
    });
    const publishing = publishPage(page, options, NONE_EARLIER).outcome;
    await expect(publishing).rejects.toBe(LOST);
    expect(publisher.calls).toEqual([]);
    expect(failures).toEqual([]);
  });

  test('stops work with a deadline from starting', async () => {
    let begun = 0;
    const work = async () => void (begun += 1);
    const tooLate = () => new Error('too late');
    await expect(withDeadline(1_000, AbortSignal.abort(LOST), tooLate, work)).rejects.toBe(LOST);
    expect(begun).toBe(0);
    await withDeadline(1_000, new AbortController().signal, tooLate, work);
    expect(begun).toBe(1);
  });
});

describe('a deadline', () => {
  const tooLate = () => new Error('too late');

  test('aborts the signal of its work, including a signal that is read afterwards', async () => {
    const signals: AbortSignal[] = [];
    let ask: () => AbortSignal = () => new AbortController().signal;
    const ended = withDeadline(1, undefined, tooLate, (signal) => {
      signals.push(signal());
      return new Promise<void>(() => undefined);
    });
    await expect(ended).rejects.toThrow('too late');
    await expect(
      withDeadline(1, undefined, tooLate, (signal) => {
        ask = signal;
        return new Promise<void>(() => undefined);
      }),
    ).rejects.toThrow('too late');
    signals.push(ask());
    expect(signals.map(({ aborted, reason }) => [aborted, (reason as Error).message])).toEqual([
      [true, 'too late'],
      [true, 'too late'],
    ]);
  });

  test('ends with its parent and for the same reason, whenever the signal is read', async () => {
    const parent = new AbortController();
    const reason = new Error('the parent');
    const signals: (() => AbortSignal)[] = [];
    const ended = ['before', 'after'].map((when) =>
      withDeadline(60_000, parent.signal, tooLate, (signal) => {
        if (when === 'before') signal();
        signals.push(signal);
        return new Promise<void>(() => undefined);
      }),
    );
    parent.abort(reason);
    for (const each of ended) await expect(each).rejects.toBe(reason);
    expect(signals.map((signal) => signal().reason as Error)).toEqual([reason, reason]);
  });

  test('aborts nothing once the work is done', async () => {
    const parent = new AbortController();
    let ask: (() => AbortSignal) | undefined;
    await withDeadline(60_000, parent.signal, tooLate, async (signal) => void (ask = signal));
    parent.abort();
    expect(ask?.().aborted).toBe(false);
  });

  test('leaves neither a listener nor a timer if the work throws at once', async () => {
    const parent = new AbortController();
    const removed = vi.spyOn(parent.signal, 'removeEventListener');
    let timers = 0;
    const clock: Clock = {
      ...systemClock,
      setTimeout: () => {
        timers += 1;
        return () => (timers -= 1);
      },
    };
    const work = () => {
      expect(timers).toBe(1);
      throw new Error('at once');
    };
    await expect(withDeadline(1_000, parent.signal, tooLate, work, clock)).rejects.toThrow('at once');
    expect(removed).toHaveBeenCalledOnce();
    expect(timers).toBe(0);
  });
});

describe('a message that was stored twice', () => {
  async function storeWithTwice(): Promise<PlainStore> {
    const store = new PlainStore();
    const [twice, other] = [message('a1'), message('a2')];
    await store.transaction((transaction) => store.add(transaction, [twice, twice, other]));
    return store;
  }

  test.each([1, 2, 3, 100])('is done with after publish() with pages of %i', async (publishBatchSize) => {
    const store = await storeWithTwice();
    const publisher = scripted();
    const messenger = new Messenger(store, publisher, { publishBatchSize });
    let left = 5;
    while ((await messenger.publish()) > 0 && left > 0) left -= 1;
    expect(left).toBeGreaterThan(0);
    expect(publisher.sent.filter((text) => text === 'a1').length).toBeLessThanOrEqual(2);
    expect(publisher.sent.at(-1)).toBe('a2');
    expect((await store.messages(10)).map(textOf)).toEqual([]);
  });

  test.each([1, 2, 3, 100])('is done with in a relay with pages of %i', async (publishBatchSize) => {
    const store = await storeWithTwice();
    const publisher = scripted();
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize, errorLogger }));
    await until(async () => (await store.messages(10)).length === 0, 'nothing left', 5_000);
    const sent = publisher.sent.length;
    await new Promise((resolve) => setTimeout(resolve, 30));
    await relay.stop();
    expect(publisher.sent).toHaveLength(sent);
    expect(publisher.sent.filter((text) => text === 'a1').length).toBeLessThanOrEqual(2);
    expect(errorLogger.errors).toEqual([]);
  });
});

/** What the relay makes of a publisher that fails: message by message, key by key, or as a whole. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { FailureKind } from '../../src/core/errors.js';
import type { MessengerEvent } from '../../src/core/contracts/events.js';
import type { Message } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { ACKNOWLEDGED, type BatchPublisher, type PublishResult } from '../../src/core/contracts/publisher.js';
import { until } from '../../src/testing/conformance/assert.js';
import {
  FAST,
  ListFeedStore,
  plainStore,
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

/** A batch publisher that answers whatever it is told, however wrong, and then acknowledges. */
function answering(...answers: readonly ((count: number) => unknown)[]): BatchPublisher & { calls: string[][] } {
  const left = [...answers];
  const calls: string[][] = [];
  return {
    calls,
    publish: () => Promise.reject(new Error('publish() of a publisher with a batch form was called')),
    publishBatch: async (messages) => {
      calls.push(messages.map(textOf));
      const answer = left.shift();
      return (
        answer === undefined ? messages.map(() => ACKNOWLEDGED) : await answer(messages.length)
      ) as PublishResult[];
    },
  };
}

describe('a wrong answer to a batch', () => {
  const ack = (count: number) => Array.from({ length: count }, () => ACKNOWLEDGED);

  test.each<[string, (count: number) => unknown, RegExp]>([
    [
      'too few results',
      (count) => ack(count - 1),
      /answered 2 results for 3 messages, so all messages of the call count as not published/,
    ],
    [
      'too many results',
      (count) => ack(count + 1),
      /answered 4 results for 3 messages, so all messages of the call count as not published/,
    ],
    ['no results', () => undefined, /answered undefined results for 3 messages/],
    ['something else', () => 'yes', /answered 3 results|answered undefined results/],
    ['a hole', (count) => [ACKNOWLEDGED, , ...ack(count - 2)], /result 1 of 3 is neither/], // eslint-disable-line no-sparse-arrays
    ['a failure without an error', (count) => [...ack(count - 1), { acknowledged: false }], /result 2 of 3 is neither/],
    ['a string for true', (count) => [{ acknowledged: 'true' }, ...ack(count - 1)], /result 0 of 3 is neither/],
    ['a throw', () => Promise.reject(new Error('thrown')), /thrown/],
    ['a synchronous throw', () => expect.unreachable('sync'), /sync/],
    [
      'something thrown that is no Error',
      () => Promise.reject(Object.create(null) as Error),
      /a value that is not an Error was thrown/,
    ],
  ])('settles no message of the batch: %s', async (_, answer, text) => {
    const store = await plainStore('a1', 'b1', 'c1');
    const publisher = answering(answer);
    await expect(new Messenger(store, publisher).publish()).rejects.toThrow(text);
    expect(await unpublished(store)).toEqual(['a1', 'b1', 'c1']);

    const errorLogger = recordingLogger();
    const again = answering(answer);
    const relay = started(new Messenger(store, again, { ...FAST, storeOutageLimit: 0, errorLogger }));
    await until(async () => (await unpublished(store)).length === 0, 'the second attempt');
    await relay.stop();
    expect(again.calls).toEqual([
      ['a1', 'b1', 'c1'],
      ['a1', 'b1', 'c1'],
    ]);
    expect(errorLogger.text()).toMatch(text);
  });
});

describe('a batch that fails in part', () => {
  test('settles only the acknowledged messages', async () => {
    const store = await plainStore('a1', 'b1', 'c1', '-1');
    const publisher = scriptedBatch((text) => {
      if (text === 'b1' || text === '-1') throw new Error('busy');
    });
    await expect(new Messenger(store, publisher).publish()).rejects.toThrow(/^2 messages were published, with 2 fail/);
    expect(await unpublished(store)).toEqual(['b1', '-1']);
  });

  test('parks a failed message with the rest of its key, and publishes the other keys', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1', 'a2', 'b1', 'b2', '-1');
    let broken = true;
    const publisher = scriptedBatch((text) => {
      if (broken && text === 'a1') throw new Error('busy');
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { errorLogger }));
    await vi.advanceTimersByTimeAsync(100);
    await put(store, 'a3', 'b3');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(publisher.acknowledged).toEqual(['b1', '-1', 'b2', 'b3']);
    expect(new Set(publisher.sent.filter((text) => text.startsWith('a')))).toEqual(new Set(['a1']));
    expect(await unpublished(store)).toEqual(['a1', 'a2', 'a3']);
    // Attempts get rarer: twenty would be one every three seconds.
    expect(errorLogger.errors.length).toBeGreaterThan(2);
    expect(errorLogger.errors.length).toBeLessThan(20);
    broken = false;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(publisher.acknowledged.slice(4)).toEqual(['a1', 'a2', 'a3']);
    expect(await unpublished(store)).toEqual([]);
    await relay.stop();
  });

  test.each([
    ['one at a time', () => scripted],
    ['in batches', () => scriptedBatch],
  ])('makes a dead letter of a permanent failure, and goes on with its key: %s', async (_, kind) => {
    const store = new ListFeedStore();
    store.add('a1', 'a2', 'b1', 'a3');
    const errorLogger = recordingLogger();
    const publisher = kind()((text) => {
      if (text === 'a1' || text === 'a3') throw refusal('permanent', 'too large');
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger }));
    await until(() => store.isDone, 'the rest');
    store.add('a4');
    await until(() => publisher.acknowledged.includes('a4'), 'a4');
    await relay.stop();
    expect(publisher.acknowledged.filter((text) => text.startsWith('a'))).toEqual(['a2', 'a4']);
    expect(store.dead).toEqual(['a1', 'a3']);
    expect(publisher.sent.filter((text) => text === 'a1')).toHaveLength(1);
    expect(errorLogger.errors).toHaveLength(2);
    expect(errorLogger.text()).toMatch(/is a dead letter: too large/);
  });

  test('sends the rest of a key again after a dead letter, if the batch keeps the order of keys', async () => {
    const store = new ListFeedStore();
    store.add('a1', 'a2', 'a3', 'b1');
    const publisher = scriptedBatch(
      (text) => {
        if (text === 'a2') throw refusal('permanent');
      },
      { batchKeepsKeyOrder: true },
    );
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'the rest');
    await relay.stop();
    expect(publisher.calls).toEqual([['a1', 'a2', 'a3', 'b1'], ['a3']]);
    expect(publisher.acknowledged).toEqual(['a1', 'b1', 'a3']);
    expect(store.dead).toEqual(['a2']);
  });

  test('counts attempts across pages, and passes them with the error to the store', async () => {
    const store = new ListFeedStore();
    store.add('a1', 'a2');
    let attempts = 0;
    const publisher = scripted((text) => {
      if (text === 'a1' && ++attempts <= 4) throw new Error(`busy ${attempts}`);
    });
    const seen: unknown[] = [];
    store.fault = (call) => {
      const parked = store.parked.get(0);
      if (call === 'settled' && parked) seen.push([parked.attempts, parked.error?.message]);
    };
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    expect(seen).toEqual([1, 2, 3, 4].map((n) => [n, `busy ${n}`]));
    expect(errorLogger.errors.map(({ message }) => /attempt \d/.exec(message)?.[0])).toEqual(
      [1, 2, 3, 4].map((n) => `attempt ${n}`),
    );
    expect(publisher.acknowledged).toEqual(['a1', 'a2']);
  });
});

describe('parked messages', () => {
  test('are all sent as soon as the first of their key is acknowledged, however small the pages are', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1', 'a2', 'a3', 'a4', 'a5');
    let failures = 1;
    const publisher = scripted(() => {
      if (failures-- > 0) throw new Error('busy');
    });
    const relay = started(new Messenger(store, publisher, { publishBatchSize: 1, errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(400);
    expect([publisher.sent, store.parked.size]).toEqual([['a1'], 5]);
    // The relay looks for due messages every second.
    await vi.advanceTimersByTimeAsync(1_000);
    expect(publisher.acknowledged).toEqual(['a1', 'a2', 'a3', 'a4', 'a5']);
    expect(store.isDone).toBe(true);
    await relay.stop();
  });

  test('are not settled if the relay is stopped before they are sent', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1');
    let settlements = 0;
    store.fault = (call) => {
      if (call === 'settle') settlements += 1;
    };
    const publisher = scripted((text) => {
      throw text === 'a1' ? new Error('busy') : refusal('connection', 'no broker');
    });
    const claimed: string[] = [];
    const relay = started(
      new Messenger(store, publisher, {
        errorLogger: recordingLogger(),
        retry: { minDelay: 5_000 },
        onEvent: (event) => {
          if (event.type === 'claimed' && event.retries) claimed.push(...event.messages.map(textOf));
        },
      }),
    );
    await vi.advanceTimersByTimeAsync(100);
    store.add('b1');
    await vi.advanceTimersByTimeAsync(10_000);
    expect([claimed, settlements]).toEqual([['a1'], 1]);
    await relay.stop();
    expect(publisher.sent.filter((text) => text === 'a1')).toHaveLength(1);
    expect(settlements).toBe(1);
    expect([...store.parked.values()]).toMatchObject([{ attempts: 1 }]);
  });
});

describe('a failure of the connection', () => {
  test('pauses publishing, uses no attempts, and resumes with the same messages', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1', 'a2', 'b1', '-1');
    let down = true;
    const publisher = scriptedBatch(() => {
      if (down) throw refusal('connection', 'no broker');
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { errorLogger }));
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(store.parked.size).toBe(0);
    expect(store.cursor).toBe(0);
    expect(publisher.calls.length).toBeGreaterThan(10);
    // With backoff up to a minute, not one a second.
    expect(publisher.calls.length).toBeLessThan(200);
    // Told when it starts, and once a minute at most.
    expect(errorLogger.errors[0]?.message).toMatch(/^the broker fails: no broker, trying again in \d+ ms$/);
    for (const { message } of errorLogger.errors.slice(1)) {
      expect(message).toMatch(/^the broker has failed for .+ \(attempts: \d+\): no broker, trying again in /);
    }
    expect(errorLogger.errors.length).toBeGreaterThan(10);
    expect(errorLogger.errors.length).toBeLessThanOrEqual(61);
    down = false;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(publisher.acknowledged).toEqual(['a1', 'b1', '-1', 'a2']);
    expect(store.isDone).toBe(true);
    await relay.stop();
  });

  test('stops the rest of the page, and keeps what was acknowledged, even for a single message', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1', 'b1', 'c1', 'd1');
    let down = true;
    const publisher = scripted((text) => {
      if (down && text === 'b1') throw refusal('connection', 'no broker');
    });
    const relay = started(new Messenger(store, publisher, { concurrency: 1, errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(publisher.acknowledged).toEqual(['a1']);
    expect(publisher.sent).not.toContain('c1');
    down = false;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(publisher.acknowledged).toEqual(['a1', 'b1', 'c1', 'd1']);
    expect(store.parked.size).toBe(0);
    await relay.stop();
  });

  test('does not save a message that the same batch refuses permanently', async () => {
    const store = new ListFeedStore();
    store.add('a1', 'b1');
    let down = true;
    const publisher = scriptedBatch((text) => {
      if (text === 'a1') throw refusal('permanent');
      if (down) {
        down = false;
        throw refusal('connection');
      }
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'b1');
    await relay.stop();
    expect(publisher.calls).toEqual([['a1', 'b1'], ['b1']]);
    expect(store.dead).toEqual(['a1']);
  });
});

test('publish sends no new messages after a retry that finds the broker down', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  store.add('a1');
  let error: Error = new Error('busy');
  const publisher = scripted(() => {
    throw error;
  });
  const messenger = new Messenger(store, publisher, { errorLogger: recordingLogger() });
  await expect(messenger.publish()).rejects.toThrow('busy');
  error = refusal('connection', 'no broker');
  store.add('b1');
  await vi.advanceTimersByTimeAsync(1_000);
  await expect(messenger.publish()).rejects.toMatchObject({ kind: 'connection' });
  expect(publisher.sent).toEqual(['a1', 'a1']);
});

test('publish also sends the messages behind a retry that becomes a dead letter, after the new messages', async () => {
  vi.useFakeTimers();
  const store = new ListFeedStore();
  store.add('a1', 'a2');
  let kind: FailureKind = 'retryable';
  const publisher = scripted((text) => {
    if (text === 'a1') throw refusal(kind);
  });
  const messenger = new Messenger(store, publisher, { errorLogger: recordingLogger() });
  await expect(messenger.publish()).rejects.toThrow('retryable');
  kind = 'permanent';
  store.add('b1');
  await vi.advanceTimersByTimeAsync(1_000);
  await expect(messenger.publish()).rejects.toThrow('permanent');
  expect(store.dead).toEqual(['a1']);
  expect(publisher.acknowledged).toEqual(['b1', 'a2']);
});

describe('a whole batch that fails alike', () => {
  test('is retried as a whole five times, and then parked message by message', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1', 'b1', '-1');
    const publisher = scriptedBatch((text) => {
      if (text !== 'c1') throw new Error('busy');
    });
    const errorLogger = recordingLogger();
    const retry = { minDelay: 100, maxDelay: 100 };
    const events: string[] = [];
    const onEvent = ({ type }: MessengerEvent) => {
      if (['paused', 'failed'].includes(type)) events.push(type);
    };
    const relay = started(new Messenger(store, publisher, { retry, errorLogger, onEvent }));
    await vi.advanceTimersByTimeAsync(1);
    store.add('c1');
    await vi.waitUntil(() => publisher.acknowledged.includes('c1'), { timeout: 60_000 });
    const whole = publisher.calls.filter((call) => call.length === 3);
    expect(whole.length).toBeGreaterThanOrEqual(6);
    expect(publisher.calls.indexOf(publisher.calls.find((call) => call.includes('c1'))!)).toBeGreaterThanOrEqual(6);
    expect(events.slice(0, 8)).toEqual([
      'paused',
      'paused',
      'paused',
      'paused',
      'paused',
      'failed',
      'failed',
      'failed',
    ]);
    expect(
      errorLogger.errors.slice(0, 4).map(({ message }) => message.replace(/message .* was/, 'message was')),
    ).toEqual([
      expect.stringMatching(/^the broker fails: busy, trying again in \d+ ms$/),
      ...Array.from({ length: 3 }, () => expect.stringMatching(/^message was not published \(attempt 1, /) as string),
    ]);
    expect([...store.parked.values()].map((each) => textOf(each.message))).toEqual(['a1', 'b1', '-1']);
    await relay.stop();
  });

  test('uses no attempts if the batch recovers', async () => {
    const store = new ListFeedStore();
    store.add('a1', 'b1', '-1');
    let failures = 5;
    const publisher = answering(
      ...Array.from({ length: failures }, () => () => {
        failures--;
        throw new Error('restarting');
      }),
    );
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    store.fault = (call) => {
      if (call === 'settle') expect(failures).toBe(0);
    };
    await until(() => store.isDone, 'all');
    await relay.stop();
    expect(publisher.calls).toHaveLength(6);
    expect(store.parked.size).toBe(0);
  });

  test.each([false, true])(
    'does not count as an outage if all its messages have one key (batch keeps order: %s)',
    async (keeps) => {
      vi.useFakeTimers();
      const store = new ListFeedStore();
      store.add('a1', 'a2', 'a3');
      const publisher = scriptedBatch(
        (text) => {
          if (text.startsWith('a')) throw new Error('poison');
        },
        { batchKeepsKeyOrder: keeps },
      );
      const errorLogger = recordingLogger();
      const relay = started(new Messenger(store, publisher, { errorLogger }));
      await vi.advanceTimersByTimeAsync(1);
      store.add('b1');
      await vi.advanceTimersByTimeAsync(1_500);
      await relay.stop();
      expect(publisher.acknowledged).toEqual(['b1']);
      expect(errorLogger.text()).not.toContain('paused');
    },
  );

  test('does not count as an outage if its messages are retries: they delay only their own keys', async () => {
    vi.useFakeTimers();
    // Without jitter they are due together.
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    const store = new ListFeedStore();
    store.add('a1', 'b1', 'c1', 'd1');
    const publisher = scriptedBatch((text) => {
      if (text === 'a1' || text === 'b1') throw new Error('poison');
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { errorLogger, retry: { minDelay: 60_000 } }));
    const worst = { wait: 0 };
    for (let i = 2; i < 100; i++) {
      store.add(`c${i}`);
      const at = Date.now();
      while (!publisher.acknowledged.includes(`c${i}`)) await vi.advanceTimersByTimeAsync(100);
      worst.wait = Math.max(worst.wait, Date.now() - at);
      await vi.advanceTimersByTimeAsync(10_000);
    }
    await relay.stop();
    expect(errorLogger.errors.length).toBeGreaterThan(4);
    expect(errorLogger.text()).not.toContain('paused');
    expect(publisher.calls).toContainEqual(['a1', 'b1']);
    expect(worst.wait).toBeLessThanOrEqual(1_100);
  });
});

describe('poison messages', () => {
  test('do not stop the rest of a plain store, even if they fill more than its first page', async () => {
    const poison = Array.from({ length: 350 }, (_, i) => `p${i}-`);
    const store = await plainStore(...poison, 'a1', 'a2', 'b1');
    const publisher = scripted((text) => {
      if (text.startsWith('p')) throw new Error('poison');
    });
    const errorLogger = recordingLogger();
    const retry = { minDelay: 1, maxDelay: 60_000 };
    const relay = started(new Messenger(store, publisher, { interval: 1, retry, errorLogger }));
    await until(() => publisher.acknowledged.length === 3, 'the rest');
    await put(store, 'c1');
    // The same refusal again and again pauses publishing, for longer each time: at worst for some ten seconds here.
    await until(() => publisher.acknowledged.length === 4, 'a later one', 60_000);
    await relay.stop();
    expect(publisher.acknowledged.sort()).toEqual(['a1', 'a2', 'b1', 'c1']);
    expect(await unpublished(store)).toEqual(poison);
  });

  test('do not stop the rest if they are refused permanently, and are dead letters only after another message got through', async () => {
    const poison = Array.from({ length: 350 }, (_, i) => `p${i}-`);
    const store = new ListFeedStore();
    store.add(...poison);
    let good = false;
    const publisher = scripted((text) => {
      if (text.startsWith('p')) throw refusal('permanent');
      expect(store.dead).toEqual([]);
      good = true;
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.parked.size === 350, 'all of them parked');
    expect(good).toBe(false);
    expect(store.dead).toEqual([]);
    store.add('a1');
    await until(() => store.isDone, 'the end of all of them');
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['a1']);
    expect(store.dead).toHaveLength(350);
  });
});

describe('a plain store', () => {
  test('goes on with the key of a dead letter, in later pages too', async () => {
    const store = await plainStore('a1', 'a2');
    const publisher = scripted((text) => {
      if (text === 'a1') throw refusal('permanent');
    });
    const relay = started(
      new Messenger(store, publisher, { ...FAST, publishBatchSize: 1, errorLogger: recordingLogger() }),
    );
    await until(() => publisher.acknowledged.includes('a2'), 'a2');
    await put(store, 'a3');
    await until(() => publisher.acknowledged.includes('a3'), 'a3');
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['a2', 'a3']);
    expect(await unpublished(store)).toEqual(['a1']);
  });

  test('goes on with the key of a message that becomes a dead letter after other failures', async () => {
    const store = await plainStore('a1', 'a2');
    let attempts = 0;
    const publisher = scripted((text) => {
      if (text === 'a1') throw refusal(++attempts < 3 ? 'retryable' : 'permanent');
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => publisher.acknowledged.includes('a2'), 'a2');
    await put(store, 'a3');
    await until(() => publisher.acknowledged.includes('a3'), 'a3');
    await relay.stop();
    expect(attempts).toBe(3);
    expect(publisher.acknowledged).toEqual(['a2', 'a3']);
  });

  test('gets a dead letter again after minutes, because it has nowhere else to keep it', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1', 'a2');
    let refuse = true;
    const publisher = scripted((text) => {
      if (refuse && text === 'a1') throw refusal('permanent');
    });
    const relay = started(new Messenger(store, publisher, { errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(290_000);
    expect(publisher.sent).toEqual(['a1', 'a2']);
    refuse = false;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(publisher.acknowledged).toEqual(['a2', 'a1']);
    expect(await unpublished(store)).toEqual([]);
    await relay.stop();
  });

  test('never gets two calls at once', async () => {
    const inner = await plainStore(...Array.from({ length: 50 }, (_, i) => `-${i}`));
    let running = 0;
    let most = 0;
    const alone = async <T>(work: () => Promise<T>): Promise<T> => {
      most = Math.max(most, ++running);
      // Some turns of the event loop, so that a second call would be seen.
      for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return work();
    };
    const store = {
      messages: (batch: number) => alone(() => inner.messages(batch)),
      published: (...messages: readonly Message[]) => alone(() => inner.published(...messages)),
      deletePublishedByExpiration: (age: number) => alone(() => inner.deletePublishedByExpiration(age)),
    };
    const messenger = new Messenger(store, scripted(), { ...FAST, publishBatchSize: 3, cleanUp: 0 });
    const relay = started(messenger);
    await Promise.all([messenger.clean(), messenger.clean()]);
    await until(async () => (await inner.messages(1)).length === 0, 'all');
    await relay.stop();
    expect(most).toBe(1);
  });

  test.each([0, 1, 2, 5])(
    'never has a message published twice if it lists more slowly than it marks (%i turns)',
    async (turns) => {
      const inner = await plainStore(...Array.from({ length: 30 }, (_, i) => `-${i}`));
      const store = {
        // What it answers with was read before the answer arrives.
        messages: async (batch: number) => {
          const listed = await inner.messages(batch);
          for (let i = 0; i < turns; i++) await Promise.resolve();
          return listed;
        },
        published: (...messages: readonly Message[]) => inner.published(...messages),
        deletePublishedByExpiration: (age: number) => inner.deletePublishedByExpiration(age),
      };
      const publisher = scripted();
      const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 2 }));
      await until(async () => (await inner.messages(1)).length === 0, 'all');
      await relay.stop();
      expect(publisher.sent).toEqual(Array.from({ length: 30 }, (_, i) => `-${i}`));
    },
  );

  test('keeps being published when its messages vanish', async () => {
    const store = await plainStore('a1', 'b1');
    const publisher = scripted(async (text) => {
      if (text !== 'a1') return;
      // Somebody marks it by hand, and cleans, while it is being published.
      await store.published(...(await store.messages(1)));
      await store.deletePublishedByExpiration(0);
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger }));
    await until(async () => (await unpublished(store)).length === 0, 'b1');
    await relay.stop();
    expect(errorLogger.errors).toMatchObject([{ code: 'UNKNOWN_MESSAGE' }]);
  });
});

/** A store with feeds: leases lost and taken over, standby, settling in order. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Messenger } from '../../src/core/relay/messenger.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import { FAST, ListFeedStore, recordingLogger, refusal, scripted, scriptedBatch, started } from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
});

const storeOf = (...texts: readonly string[]): ListFeedStore => {
  const store = new ListFeedStore();
  store.add(...texts);
  return store;
};

describe('a relay that loses its lease', () => {
  test('stops publishing at once, settles nothing, and claims again', async () => {
    const store = storeOf('a1', 'b1', 'c1', 'd1');
    const broker = gate();
    const signals: AbortSignal[] = [];
    const publisher = scripted((_, options) => {
      signals.push(options!.signal!);
      return broker.opened;
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, concurrency: 2, errorLogger }));
    await until(() => publisher.sent.length === 2, 'two in flight');
    let cursorWhenReopened = -1;
    store.fault = (call) => {
      if (call === 'open') cursorWhenReopened = store.cursor;
    };
    store.revoke();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
    await until(() => store.opened === 2, 'another feed');
    expect(cursorWhenReopened).toBe(0);
    expect(errorLogger.errors).toMatchObject([{ code: 'LEASE_LOST' }]);
    broker.open();
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    // What was in flight twice, and nothing of the old lease after it was lost.
    expect(publisher.sent).toEqual(['a1', 'b1', 'a1', 'b1', 'c1', 'd1']);
  });

  test('sends no second batch if the lease is lost between two batches', async () => {
    const store = storeOf('a1', 'a2');
    const publisher = scriptedBatch((text) => {
      if (text === 'a1' && store.opened === 1) store.revoke();
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    expect(publisher.calls).toEqual([['a1'], ['a1'], ['a2']]);
  });

  test('ends its pause for a failing broker', async () => {
    vi.useFakeTimers();
    const store = storeOf('a1', 'b1');
    const publisher = scriptedBatch(() => Promise.reject(refusal('connection')));
    const retry = { minDelay: 3_600_000, maxDelay: 3_600_000 };
    const relay = started(new Messenger(store, publisher, { retry, errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(1_000);
    store.revoke();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(store.opened).toBe(2);
    await relay.stop();
  });

  test('stops sleeping if it is idle', async () => {
    vi.useFakeTimers();
    const store = storeOf();
    const relay = started(new Messenger(store, scripted(), { interval: 3_600_000, errorLogger: recordingLogger() }));
    await vi.advanceTimersByTimeAsync(24 * 3_600_000);
    store.revoke();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(store.opened).toBe(2);
    await relay.stop();
  });

  test('does not count the loss as an outage of the store, even with a limit of 0', async () => {
    const store = storeOf('a1');
    const publisher = scripted();
    const relay = started(
      new Messenger(store, publisher, { ...FAST, storeOutageLimit: 0, errorLogger: recordingLogger() }),
    );
    for (let i = 1; i <= 3; i++) {
      await until(() => store.isDone && store.held, 'work done');
      store.revoke();
      await until(() => store.opened === i + 1, 'another feed');
      store.add(`b${i}`);
    }
    await until(() => publisher.acknowledged.includes('b3'), 'b3');
    await relay.stop();
  });

  test('claims again even if it has read nothing yet', async () => {
    const store = storeOf('a1');
    store.fault = (call) => {
      if (call === 'retries' && store.opened === 1) store.revoke();
    };
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => publisher.acknowledged.includes('a1'), 'a1');
    await relay.stop();
  });

  test('rejects in publish(), and settles nothing', async () => {
    const store = storeOf('a1', 'b1');
    const publisher = scripted(() => {
      store.revoke();
    });
    await expect(new Messenger(store, publisher, { concurrency: 1 }).publish()).rejects.toMatchObject({
      code: 'LEASE_LOST',
    });
    expect(publisher.sent).toEqual(['a1']);
    expect(store.cursor).toBe(0);
  });
});

describe('a destination that another relay holds', () => {
  test('is left alone until it is free, and then taken over', async () => {
    const store = storeOf('a1');
    const [first, second] = [scripted(), scripted()];
    const holder = started(new Messenger(store, first, FAST));
    await until(() => first.sent.length === 1, 'a1');
    const errorLogger = recordingLogger();
    let tries = 0;
    store.fault = (call) => (tries += call === 'open' ? 1 : 0);
    const standby = started(new Messenger(store, second, { ...FAST, storeOutageLimit: 0, errorLogger }));
    await until(() => tries > 3, 'some tries');
    store.add('a2');
    await until(() => first.sent.length === 2, 'a2');
    expect(second.sent).toEqual([]);
    await holder.stop();
    store.add('a3');
    await until(() => second.sent.length === 1, 'a3');
    await standby.stop();
    expect(first.sent).toEqual(['a1', 'a2']);
    expect(second.sent).toEqual(['a3']);
    expect(errorLogger.errors).toEqual([]);
    expect(store.held).toBe(false);
  });

  test('gives publish() 0 messages', async () => {
    const store = storeOf('a1');
    const feed = await store.openFeed({ destination: 'default', pageSize: 1 });
    expect(await new Messenger(store, scripted()).publish()).toBe(0);
    await feed!.close();
    expect(await new Messenger(store, scripted()).publish()).toBe(1);
    expect(store.held).toBe(false);
  });

  test('does not keep a standby relay from stopping', async () => {
    vi.useFakeTimers();
    const store = storeOf();
    await store.openFeed({ destination: 'default', pageSize: 1 });
    const standby = started(new Messenger(store, scripted(), { interval: 3_600_000 }));
    await vi.advanceTimersByTimeAsync(1_000);
    await standby.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a feed', () => {
  test('is opened for the relay’s destination and page size, and closed', async () => {
    const store = storeOf('a1');
    const opening = vi.spyOn(store, 'openFeed');
    await new Messenger(store, scripted(), { destination: 'audit', publishBatchSize: 7 }).publish();
    expect(opening).toHaveBeenCalledExactlyOnceWith({ destination: 'audit', pageSize: 7, signal: undefined });
    expect(store.held).toBe(false);
  });

  test('is closed when the store fails, and reopened after the last settled message', async () => {
    const store = storeOf('a1', 'a2', 'a3', 'a4');
    let left = 3;
    store.fault = (call) => {
      if (call === 'settle' && left-- > 0) throw new Error('connection reset');
    };
    const publisher = scripted();
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 1, errorLogger }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    expect(new Set(errorLogger.errors.map(({ cause }) => (cause as Error).message))).toContain('connection reset');
    expect(publisher.acknowledged.filter((text, i, all) => all.indexOf(text) === i)).toEqual(['a1', 'a2', 'a3', 'a4']);
  });

  test('is closed only after a settlement in flight when reading fails', async () => {
    const store = storeOf('a1');
    const settled = gate();
    let failed = false;
    store.fault = (call) => {
      if (call === 'settle') return settled.opened;
      if (call !== 'read' || failed || publisher.sent.length === 0) return undefined;
      failed = true;
      throw new Error('connection reset');
    };
    const publisher = scripted();
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => failed, 'a read that fails');
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(store.held).toBe(true);
    settled.open();
    await until(() => store.opened === 2 && store.isDone, 'another feed');
    await relay.stop();
    expect(publisher.sent).toEqual(['a1']);
  });

  test('publishes at most the pages in flight again after a crash', async () => {
    const texts = Array.from({ length: 40 }, (_, i) => `-${i}`);
    const store = storeOf(...texts);
    const never = new Promise(() => undefined);
    let settling = 0;
    // The first settlements work; then the store hangs, and with it the relay.
    store.fault = (call) => (call === 'settle' && ++settling > 3 ? never : undefined);
    const first = scripted();
    void new Messenger(store, first, { ...FAST, publishBatchSize: 4 }).start();
    // With one more page in flight, unless it is just then looking for retries: that waits for the settlement.
    await until(() => settling > 3 && first.sent.length >= 16, 'a relay that hangs');
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    store.revoke();
    store.fault = () => undefined;
    const second = scripted();
    const relay = started(new Messenger(store, second, { ...FAST, publishBatchSize: 4 }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    const twice = second.sent.filter((text) => first.sent.includes(text));
    expect(twice).toEqual(texts.slice(12, first.sent.length));
    expect(twice.length).toBeLessThanOrEqual(4 * 4);
    expect(new Set([...first.sent, ...second.sent]).size).toBe(40);
  });

  test('never publishes a new message before a waiting message of its key', async () => {
    const store = storeOf('a1', 'a2', 'a3');
    let failures = 4;
    const publisher = scripted((text) => {
      if (text === 'a1' && failures-- > 0) {
        store.add(`a${4 + (3 - failures)}`);
        throw new Error('busy');
      }
    });
    const relay = started(new Messenger(store, publisher, { ...FAST, errorLogger: recordingLogger() }));
    await until(() => store.isDone, 'all of it');
    await relay.stop();
    expect(publisher.acknowledged).toEqual(['a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7']);
  });
});

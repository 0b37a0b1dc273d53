/** Waiting for a signal, and sleeping: what wakes a sleeper, and what is left behind. */
import { getEventListeners } from 'node:events';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { onAbort, sleepBy } from '../../src/core/util/async.js';
import { systemClock } from '../../src/core/util/clock.js';

afterEach(() => {
  vi.useRealTimers();
});

const listenersOf = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;

describe('the callbacks of a signal', () => {
  test('share one listener, which goes with the last of them', () => {
    const { signal } = new AbortController();
    const forget = [1, 2, 3].map(() => onAbort(signal, () => undefined));
    expect(listenersOf(signal)).toBe(1);
    for (const each of forget) each();
    expect(listenersOf(signal)).toBe(0);
  });

  test('share one listener even if an earlier callback is removed twice', () => {
    const { signal } = new AbortController();
    const forget = onAbort(signal, () => undefined);
    forget();
    const later = [onAbort(signal, () => undefined)];
    forget();
    later.push(onAbort(signal, () => undefined));
    expect(listenersOf(signal)).toBe(1);
    for (const each of later) each();
    expect(listenersOf(signal)).toBe(0);
  });

  test('are called once, except those that were removed', () => {
    const controller = new AbortController();
    const called: string[] = [];
    const callback = (name: string) => onAbort(controller.signal, () => void called.push(name));
    callback('a');
    const forget = callback('b');
    callback('c');
    forget();
    controller.abort();
    controller.abort();
    expect(called).toEqual(['a', 'c']);
  });
});

describe('a sleep', () => {
  const { signal: never } = new AbortController();

  /** Whether a sleep is over by now. */
  function asleep(ms: number, ...signals: readonly (AbortSignal | undefined)[]): () => boolean {
    let isOver = false;
    void sleepBy(systemClock, ms, ...signals).then(() => (isOver = true));
    return () => !isOver;
  }

  test.each([1_000, Infinity])('of %d ms does not begin if any of its signals has aborted', async (ms) => {
    vi.useFakeTimers();
    const isAsleep = asleep(ms, undefined, never, AbortSignal.abort());
    await vi.advanceTimersByTimeAsync(0);
    expect([isAsleep(), vi.getTimerCount(), listenersOf(never)]).toEqual([false, 0, 0]);
  });

  test('ends after its time, and leaves no listener', async () => {
    vi.useFakeTimers();
    const isAsleep = asleep(1_000, undefined, never);
    await vi.advanceTimersByTimeAsync(999);
    expect(isAsleep()).toBe(true);
    await vi.advanceTimersByTimeAsync(1);
    expect([isAsleep(), listenersOf(never)]).toEqual([false, 0]);
  });

  test('of Infinity sets no timer, and ends when a signal aborts', async () => {
    vi.useFakeTimers();
    const stop = new AbortController();
    const isAsleep = asleep(Infinity, never, stop.signal);
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(86_400_000);
    expect(isAsleep()).toBe(true);
    stop.abort();
    await vi.advanceTimersByTimeAsync(0);
    expect([isAsleep(), listenersOf(never)]).toEqual([false, 0]);
  });
});

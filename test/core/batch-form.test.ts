/** The batch form of a publisher that has none: a deadline for each call, and which calls count as answered. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Publisher } from '../../src/core/contracts/publisher.js';
import { Calls, isUnanswered } from '../../src/core/publish/calls.js';
import { failureKind } from '../../src/core/publish/failure-kinds.js';
import { batchForm } from '../../src/core/relay/batch-form.js';
import { systemClock as clock } from '../../src/core/util/clock.js';
import { message, refusal, scripted, scriptedBatch } from './scripted.js';

const TIMEOUT = 1_000;
const DAY = 86_400_000;

function formOf(publisher: Publisher, { publishTimeout = TIMEOUT, pageSize = 10 } = {}) {
  const calls = new Calls(clock);
  const options = { concurrency: 8, publishTimeout, pageSize, kindOf: failureKind, clock, calls };
  return { calls, ...batchForm(publisher, options) };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('is the publisher itself if the publisher has a batch form', () => {
  const publisher = scriptedBatch();
  expect(formOf(publisher)).toMatchObject({ publisher, publishTimeout: TIMEOUT, watchesCalls: false });
});

it('gives a page the time of one call more than it has messages, but never more than a timer can wait', () => {
  expect(formOf(scripted(), { pageSize: 10 })).toMatchObject({ publishTimeout: 11 * TIMEOUT, watchesCalls: true });
  expect(formOf(scripted(), { publishTimeout: DAY, pageSize: 1_000 }).publishTimeout).toBe(2_147_483_647);
});

describe('a call that is not answered in time', () => {
  /** `a1` is never answered, and `b1` as the test says. Whether the error of `a1` says that nothing is answered. */
  async function silence(b1: () => unknown): Promise<boolean> {
    const publisher = scripted((text) => (text === 'a1' ? new Promise(() => undefined) : b1()));
    const { publisher: form, calls } = formOf(publisher);
    const answer = form.publishBatch([message('a1'), message('b1')]);
    await vi.advanceTimersByTimeAsync(TIMEOUT - 1);
    expect(calls.waiting).toBe(TIMEOUT - 1);
    await vi.advanceTimersByTimeAsync(1);
    const [result] = await answer;
    expect(result).toMatchObject({
      acknowledged: false,
      error: { kind: 'retryable', message: 'the publisher did not answer within 1000 ms' },
    });
    expect(calls.waiting).toBeUndefined();
    return isUnanswered((result as { error: Error }).error);
  }

  it('is merely slow if another call was acknowledged meanwhile', async () => {
    expect(await silence(() => undefined)).toBe(false);
  });

  it('means that the publisher is silent if the other calls were only rejected', async () => {
    const rejects = () => {
      throw refusal('permanent');
    };
    expect(await silence(rejects)).toBe(true);
  });
});

it('sends nothing once the signal of the call has aborted', async () => {
  const publisher = scripted();
  const reason = new Error('the lease is lost');
  const results = await formOf(publisher).publisher.publishBatch([message('a1')], {
    signal: AbortSignal.abort(reason),
  });
  expect(publisher.sent).toEqual([]);
  expect(results).toMatchObject([{ acknowledged: false }]);
});

it('passes on a signal that aborts when the call is too late', async () => {
  const signals: AbortSignal[] = [];
  const publisher: Publisher = {
    publish: (_, options) => {
      signals.push(options!.signal!);
      return new Promise(() => undefined);
    },
  };
  const answer = formOf(publisher).publisher.publishBatch([message('a1')]);
  await vi.advanceTimersByTimeAsync(TIMEOUT - 1);
  expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
  await vi.advanceTimersByTimeAsync(1);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  await answer;
});

/** What becomes of each message of a page, from the broker's answers alone. */
import { describe, expect, test } from 'vitest';
import type { Message } from '../../src/core/contracts/message.js';
import type { PublishResult } from '../../src/core/contracts/publisher.js';
import { Outcomes } from '../../src/core/publish/outcomes.js';
import type { PublishPageOptions } from '../../src/core/publish/types.js';
import { message, pageOptions, refusal, scriptedBatch, textOf } from './scripted.js';

const acknowledged: PublishResult = { acknowledged: true };
const failed = (kind: 'permanent' | 'retryable' | 'connection', text: string): PublishResult => ({
  acknowledged: false,
  error: refusal(kind, text),
});

function outcomesOf(
  messages: readonly Message[],
  { attempts, ...more }: Partial<PublishPageOptions> & { attempts?: readonly number[] } = {},
) {
  const published: string[][] = [];
  const outcomes = new Outcomes(
    { messages, ...(attempts && { attempts }) },
    pageOptions(scriptedBatch(), { onPublished: (each) => void published.push(each.map(textOf)), ...more }),
  );
  const take = (batch: readonly number[], rest: readonly number[], ...results: PublishResult[]) =>
    outcomes.take(batch, rest, results, 1);
  const parked = () =>
    outcomes.outcome([]).toPark.map(({ message: each, attempts, dead, error }) => ({
      text: textOf(each),
      attempts,
      dead,
      error: error?.message,
    }));
  return { take, parked, published };
}

const page = (...texts: readonly string[]) => texts.map((text) => message(text, { key: text.slice(0, 1) }));

describe('the outcome of a batch', () => {
  test('makes a dead letter of each message that is refused for its own fault, even behind another message of its key', () => {
    const { take, parked } = outcomesOf(page('a1', 'a2', 'a3', 'b1', 'c1', 'd1', 'e1'));
    const taken = take(
      [0, 1, 2, 3, 4, 5, 6],
      [],
      failed('permanent', 'too large'),
      failed('permanent', 'no such field'),
      failed('retryable', 'busy'),
      ...Array.from({ length: 4 }, () => acknowledged),
    );
    expect(taken).toMatchObject({ pending: [], acknowledged: true, outage: undefined });
    expect(parked()).toEqual([
      { text: 'a1', attempts: 1, dead: true, error: 'too large' },
      { text: 'a2', attempts: 1, dead: true, error: 'no such field' },
      // It may have failed only because the messages before it are missing.
      { text: 'a3', attempts: 0, dead: false, error: undefined },
    ]);
  });

  test('parks a message behind a retried message of its key, whatever its own answer is', () => {
    const { take, parked } = outcomesOf(page('a1', 'a2', 'b1', 'c1', 'd1'));
    take(
      [0, 1, 2, 3, 4],
      [],
      failed('retryable', 'busy'),
      failed('permanent', 'too large'),
      acknowledged,
      acknowledged,
      acknowledged,
    );
    expect(parked()).toEqual([
      { text: 'a1', attempts: 1, dead: false, error: 'busy' },
      { text: 'a2', attempts: 0, dead: false, error: undefined },
    ]);
  });

  test('sends all again, in the order of the page, while the broker is down', () => {
    const { take, parked, published } = outcomesOf(page('a1', 'b1', 'c1', 'd1'));
    const taken = take([1, 3], [0, 2], failed('connection', 'down'), failed('connection', 'down'));
    expect(taken.pending).toEqual([0, 1, 2, 3]);
    expect(taken.outage).toMatchObject({ certain: true });
    expect(taken.acknowledged).toBe(false);
    expect(parked()).toEqual([]);
    expect(published).toEqual([]);
  });

  test('reports the messages that were published, and no others', () => {
    const { take, published } = outcomesOf(page('a1', 'b1', 'c1', 'd1'));
    take([0, 1, 2, 3], [], acknowledged, failed('retryable', 'busy'), acknowledged, acknowledged);
    expect(published).toEqual([['a1', 'c1', 'd1']]);
  });

  test('is empty for an empty batch', () => {
    const { take, published } = outcomesOf(page('a1'));
    expect(take([], [0])).toEqual({ pending: [0], acknowledged: false, outage: undefined });
    expect(published).toEqual([]);
  });

  test('of an empty batch leaves the failures of the broker that were counted before as they were', () => {
    const { take, parked } = outcomesOf(page('a1', 'b1'), { probes: 1 });
    const alike = () => take([0, 1], [], failed('permanent', 'denied'), failed('permanent', 'denied'));
    expect(alike().pending).toEqual([0, 1]);
    take([], [0, 1]);
    expect(alike().pending).toEqual([]);
    expect(parked()).toMatchObject([
      { text: 'a1', attempts: 1, dead: false },
      { text: 'b1', attempts: 1, dead: false },
    ]);
  });

  test('of messages that were parked before is final at once, even if the broker may have failed', () => {
    const { take, parked } = outcomesOf(page('a1', 'b1'), { attempts: [0, 0], probes: 1 });
    const taken = take([0, 1], [], failed('permanent', 'denied'), failed('permanent', 'denied'));
    expect(taken).toMatchObject({ pending: [], outage: { certain: false } });
    expect(parked()).toMatchObject([
      { text: 'a1', attempts: 1, dead: false },
      { text: 'b1', attempts: 1, dead: false },
    ]);
  });

  test('tells of messages in flight only if some were when the relay stopped waiting', () => {
    const cut = new AbortController();
    const counts: number[] = [];
    const { take } = outcomesOf(page('a1', 'b1'), {
      cut: { signal: cut.signal, grace: 0 },
      onCut: (count) => void counts.push(count),
    });
    cut.abort();
    take([0, 1], [], acknowledged, acknowledged);
    expect(counts).toEqual([]);
    take([0, 1], [], acknowledged, failed('connection', 'stopped'));
    expect(counts).toEqual([1]);
  });

  test('sends all again while the broker is down, but not a message that is refused for its own fault', () => {
    const { take, parked } = outcomesOf(page('a1', 'b1', 'c1', 'd1'));
    const taken = take(
      [0, 1, 2],
      [3],
      failed('permanent', 'too large'),
      failed('connection', 'down'),
      failed('retryable', 'busy'),
    );
    expect(taken.pending).toEqual([1, 2, 3]);
    expect(parked()).toMatchObject([{ text: 'a1', attempts: 1, dead: true, error: 'too large' }]);
  });

  test('parks messages without a key, each for itself', () => {
    const { take, parked } = outcomesOf(['-1', '-2', '-3', '-4', '-5', '-6', '-7'].map((text) => message(text)));
    take(
      [0, 1, 2, 3, 4, 5, 6],
      [],
      failed('permanent', 'too large'),
      failed('retryable', 'busy'),
      failed('permanent', 'no such field'),
      ...Array.from({ length: 4 }, () => acknowledged),
    );
    expect(parked()).toEqual([
      { text: '-1', attempts: 1, dead: true, error: 'too large' },
      { text: '-2', attempts: 1, dead: false, error: 'busy' },
      { text: '-3', attempts: 1, dead: true, error: 'no such field' },
    ]);
  });
});

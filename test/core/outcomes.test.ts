/** What becomes of each message of a page, from the broker's answers alone. */
import { describe, expect, test } from 'vitest';
import type { Message } from '../../src/core/contracts/message.js';
import type { PublishResult } from '../../src/core/contracts/publisher.js';
import { Outcomes } from '../../src/core/publish/outcomes.js';
import { message, pageOptions, refusal, scriptedBatch, textOf } from './scripted.js';

const acknowledged: PublishResult = { acknowledged: true };
const failed = (kind: 'permanent' | 'retryable' | 'connection', text: string): PublishResult => ({
  acknowledged: false,
  error: refusal(kind, text),
});

function outcomesOf(messages: readonly Message[]) {
  const published: string[][] = [];
  const outcomes = new Outcomes(
    { messages },
    pageOptions(scriptedBatch(), { onPublished: (each) => void published.push(each.map(textOf)) }),
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
});

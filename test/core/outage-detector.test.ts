/** Whom a failure is blamed on while publishing is paused. */
import { describe, expect, test } from 'vitest';
import { OutageDetector, type Answered } from '../../src/core/publish/outage-detector.js';
import { message, refusal } from './scripted.js';

const acknowledged = (text: string): Answered => ({ message: message(text), attempts: 0 });
const failed = (text: string, attempts = 0): Answered => ({
  message: message(text),
  attempts,
  failure: { error: refusal('retryable', 'busy'), kind: 'retryable', signature: 'busy' },
});

describe('a failure like those for which publishing is paused', () => {
  test('belongs to the same outage if the broker acknowledges nothing', () => {
    const { failure } = failed('a1');
    expect(new OutageDetector().judge([failed('a1', 1)], 'busy')).toMatchObject({ ...failure, certain: false });
  });

  test('does not belong to it if the broker acknowledges another message', () => {
    expect(new OutageDetector().judge([failed('a1'), acknowledged('b1'), acknowledged('c1')], 'busy')).toBeUndefined();
  });

  test('does not belong to it if it is another failure', () => {
    expect(new OutageDetector().judge([failed('a1')], 'down')).toBeUndefined();
  });
});

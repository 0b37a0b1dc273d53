/** How long to wait before the next attempt. */
import { describe, expect, test } from 'vitest';
import { backoff } from '../../src/core/publish/retry-policy.js';

describe('the delay before the next attempt', () => {
  const policy = { minDelay: 100, maxDelay: 1_000 };
  const by = (random: number) => (failures: number) => backoff(failures, policy, { random: () => random });
  const failures = [1, 2, 3, 4, 5, 6, 40, 5_000];

  test('at most doubles each time, up to maxDelay', () => {
    expect(failures.map(by(1))).toEqual([100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]);
  });

  test('is random below that limit, and never less than half of minDelay', () => {
    expect(failures.map(by(0))).toEqual(failures.map(() => 50));
    expect(failures.map(by(0.5))).toEqual([75, 125, 225, 425, 525, 525, 525, 525]);
  });

  test('is spread evenly by default, so that relays that failed together do not retry together', () => {
    const delays = Array.from({ length: 4_000 }, () => backoff(4, policy)).sort((a, b) => a - b);
    expect(delays[0]).toBeGreaterThanOrEqual(50);
    expect(delays.at(-1)).toBeLessThan(800);
    // Of 4,000 even draws each quarter has a thousand; 150 more or less is five times their deviation.
    const quarters = [1, 2, 3, 4].map((n) => delays.filter((each) => each < 50 + (n * 750) / 4).length);
    quarters.forEach((count, i) => {
      expect(Math.abs(count - (i + 1) * 1_000)).toBeLessThan(160);
    });
  });

  test('is never longer than maxDelay, even if minDelay is', () => {
    expect(backoff(3, { minDelay: 500, maxDelay: 100 }, { random: () => 1 })).toBe(100);
    expect(backoff(1, { minDelay: 500, maxDelay: 100 }, { random: () => 0 })).toBe(50);
  });
});

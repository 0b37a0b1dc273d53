/** What the pairs of `npm run bench -- --against` are told to say. */
import { describe, expect, it } from 'vitest';
import { compared } from '../../bench/ratios.js';

const theirs = [100, 100, 100, 100, 100, 100, 100];

describe('a figure beside that of another commit', () => {
  it('is worse when three quarters of the pairs are worse by more than 3 %', () => {
    const ours = [90, 91, 92, 93, 94, 95, 110];
    expect(compared({ name: 'a', unit: '', better: 'higher', ours, theirs })).toEqual({
      ours: 93,
      theirs: 100,
      median: 0.93,
      least: 0.9,
      most: 1.1,
      quartiles: [0.91, 0.95],
      isWorse: true,
    });
    const slower = ours.map((value) => 200 - value);
    expect(compared({ name: 'a', unit: '', better: 'lower', ours: slower, theirs })).toMatchObject({ isWorse: true });
  });

  it('is not worse where the spread of the pairs reaches 3 %, nor where it is better', () => {
    const wide = [80, 85, 90, 91, 95, 98, 104];
    expect(compared({ name: 'a', unit: '', better: 'higher', ours: wide, theirs }).isWorse).toBe(false);
    expect(compared({ name: 'a', unit: '', better: 'lower', ours: wide, theirs }).isWorse).toBe(false);
  });

  it('goes by the ratio of each pair, so that a machine that slows down changes nothing', () => {
    const halving = theirs.map((value, i) => value / 2 ** i);
    const { median, quartiles, isWorse } = compared({
      name: 'a',
      unit: '',
      better: 'higher',
      ours: halving.map((value) => value * 0.99),
      theirs: halving,
    });
    expect(median).toBeCloseTo(0.99);
    expect(quartiles[0]).toBeCloseTo(0.99);
    expect(isWorse).toBe(false);
  });
});

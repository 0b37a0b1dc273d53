import { median, percentile } from './report.js';

/** How much worse than the other commit a figure may be, beyond what the pairs differ by anyway. */
const ALLOWED = 0.03;

/** One figure of two commits, measured in turn. */
export interface Pairs {
  readonly name: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
  /** Of this commit and of the other: the values at one index were measured one after the other. */
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
}

/** What the pairs say. Ratios are this commit's value by the other's. */
export interface Comparison {
  readonly ours: number;
  readonly theirs: number;
  readonly median: number;
  readonly least: number;
  readonly most: number;
  /** The quartiles: half of the pairs lie between them. */
  readonly quartiles: readonly [lower: number, upper: number];
  /** Whether it is worse by more than 3 % beyond the spread: three quarters of the pairs say so. */
  readonly isWorse: boolean;
}

export function compared({ ours, theirs, better }: Pairs): Comparison {
  const ratios = ours.map((value, i) => value / (theirs[i] ?? NaN));
  const sorted = [...ratios].sort((a, b) => a - b);
  const quartiles = [percentile(ratios, 0.25), percentile(ratios, 0.75)] as const;
  const isWorse = better === 'higher' ? quartiles[1] < 1 - ALLOWED : quartiles[0] > 1 + ALLOWED;
  return {
    ours: median(ours),
    theirs: median(theirs),
    median: median(ratios),
    least: sorted[0] ?? NaN,
    most: sorted.at(-1) ?? NaN,
    quartiles,
    isWorse,
  };
}

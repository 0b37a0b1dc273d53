import { seeded } from '../core/scripted.js';

/** What chance decides: the same for the same seed. */
export interface Chance {
  /** From 0 up to, and not including, 1. */
  readonly random: () => number;
  readonly whether: (probability: number) => boolean;
  /** A whole number from `least` to `most`. */
  readonly between: (least: number, most: number) => number;
  readonly pick: <T>(from: readonly T[]) => T;
}

export function chanceOf(seed: number): Chance {
  const random = seeded(seed);
  const between = (least: number, most: number) => least + Math.floor(random() * (most - least + 1));
  return {
    random,
    whether: (probability) => random() < probability,
    between,
    pick: (from) => from[between(0, from.length - 1)]!,
  };
}

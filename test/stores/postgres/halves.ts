import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import type { TestRelay, World } from './support.js';

/** The first and the second half of the partitions: what two relays hold. */
export const HALVES = ['a', 'b'];
const partitionOf = (key: string) => createHash('sha256').update(key).digest().readUInt16BE() % 8;
export const keysOf = (half: number) =>
  Array.from({ length: 200 }, (_, n) => `k${String(n)}`).filter((key) => Math.floor(partitionOf(key) / 4) === half);

/** Two relays with half of the partitions each. */
export async function halves(world: World): Promise<[TestRelay, TestRelay]> {
  await world.announce(...HALVES);
  const a = await world.relay({ relay: 'a' });
  const b = await world.relay({ relay: 'b' });
  expect([a.feed.partitions, b.feed.partitions]).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ]);
  return [a, b];
}

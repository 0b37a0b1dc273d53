import type { CursorRow } from './claim.js';
import { sameCursor, type Cursor } from './cursor.js';
import type { Position } from './reader.js';

/**
 * By how many numbers of the sequence a stored cursor may be behind, while there is nothing of ours:
 * beyond it, the other partitions' messages since then would be read over again and again.
 */
const FAR_BEHIND = 1_000;

/** The cursors of the partitions that a feed holds. */
export class HeldCursors {
  /** As the last settlement of each that was acknowledged stored it. */
  readonly #settled: Map<number, Cursor>;
  /** The same of the last settlement that was asked for. */
  #asked: Map<number, Cursor>;

  constructor(taken: readonly CursorRow[]) {
    this.#settled = new Map(taken.map(({ partition, cursor }) => [partition, cursor]));
    this.#asked = new Map(this.#settled);
  }

  /** The feed holds these partitions now, some of which were taken just now. */
  rebalanced(partitions: readonly number[], taken: readonly CursorRow[]): void {
    for (const partition of this.#settled.keys()) if (!partitions.includes(partition)) this.#settled.delete(partition);
    for (const { partition, cursor } of taken) this.#settled.set(partition, cursor);
    this.#asked = new Map(this.#settled);
  }

  /** Where to read on. Partitions with equal cursors are read together. */
  get positions(): readonly Position[] {
    const positions: { partitions: number[]; cursor: Cursor }[] = [];
    for (const [partition, cursor] of this.#settled) {
      const same = positions.find((position) => sameCursor(position.cursor, cursor));
      if (same) same.partitions.push(partition);
      else positions.push({ partitions: [partition], cursor });
    }
    return positions;
  }

  /** The largest number of which a settlement was acknowledged. */
  get high(): number {
    return Math.max(0, ...[...this.#settled.values()].map(({ high }) => high));
  }

  /** Whether what is stored of these partitions should follow where reading is, although nothing was published. */
  areBehind({ partitions, cursor }: Position): boolean {
    return partitions.some((partition) => {
      const asked = this.#asked.get(partition);
      return asked !== undefined && (asked.to !== null || asked.high + FAR_BEHIND <= cursor.high);
    });
  }

  areStored({ partitions, cursor }: Position): boolean {
    return partitions.every((partition) => {
      const settled = this.#settled.get(partition);
      return settled !== undefined && sameCursor(cursor, settled);
    });
  }

  asked({ partitions, cursor }: Position): void {
    for (const partition of partitions) this.#asked.set(partition, cursor);
  }

  settled({ partitions, cursor }: Position): void {
    for (const partition of partitions) this.#settled.set(partition, cursor);
  }
}

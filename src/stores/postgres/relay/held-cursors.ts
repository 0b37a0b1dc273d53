import type { CursorRow } from './claim.js';
import { sameCursor, type Cursor } from './cursor.js';
import type { Position } from './reader.js';

/**
 * How many sequence numbers a stored cursor can lag behind while there are no messages for this feed. With a larger
 * lag, each poll would again read all messages that were stored in other partitions since then.
 */
const FAR_BEHIND = 1_000;

/** The cursors of the partitions that a feed holds. */
export class HeldCursors {
  /** For each partition, the cursor that its last acknowledged settlement stored. */
  readonly #settled: Map<number, Cursor>;
  /** For each partition, the cursor that its last requested settlement will store. */
  #asked: Map<number, Cursor>;

  constructor(taken: readonly CursorRow[]) {
    this.#settled = new Map(taken.map(({ partition, cursor }) => [partition, cursor]));
    this.#asked = new Map(this.#settled);
  }

  /**
   * Call this after the feed's partitions have changed to these. `taken` contains the partitions that it has just
   * taken.
   */
  rebalanced(partitions: readonly number[], taken: readonly CursorRow[]): void {
    for (const partition of this.#settled.keys()) if (!partitions.includes(partition)) this.#settled.delete(partition);
    for (const { partition, cursor } of taken) this.#settled.set(partition, cursor);
    this.#asked = new Map(this.#settled);
  }

  /** Returns the positions at which to continue reading. Partitions with equal cursors are read together. */
  get positions(): readonly Position[] {
    const positions: { partitions: number[]; cursor: Cursor }[] = [];
    for (const [partition, cursor] of this.#settled) {
      const same = positions.find((position) => sameCursor(position.cursor, cursor));
      if (same) same.partitions.push(partition);
      else positions.push({ partitions: [partition], cursor });
    }
    return positions;
  }

  /** The largest `high` that an acknowledged settlement has stored. */
  get high(): number {
    return Math.max(0, ...[...this.#settled.values()].map(({ high }) => high));
  }

  /**
   * Whether these partitions' cursors should be stored because reading has advanced, although nothing was published.
   */
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

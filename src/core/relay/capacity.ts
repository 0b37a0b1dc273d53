import { Bell } from '../util/async.js';

/** How much a pipeline may have under way. */
export interface CapacityOptions {
  readonly pageSize: number;
  /** How many pages may be published at once, and, in messages, be published and not settled. */
  readonly depth: number;
  /**
   * Whether a slow call counts as a page that is being published. Not where a page is published by several calls: it
   * sends its next one beside a slow one, and is counted once.
   */
  readonly countsLate: boolean;
}

/** How much a pipeline has under way: a page counts in full until it is there. */
export class Capacity {
  /** Rings when there may be room for another page. */
  readonly freed = new Bell();
  readonly #options: CapacityOptions;
  /** Pages that are being published, or may be. */
  #publishing = 0;
  /** Messages that are published, or may be, and not settled. */
  #inFlight = 0;
  /** Calls that were slow, and are not answered. */
  #late = 0;

  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Whether a slow call is waited for. */
  get isLate(): boolean {
    return this.#late > 0;
  }

  /** Whether one page more may be published at the same time. */
  get mayCall(): boolean {
    const { depth, countsLate } = this.#options;
    return this.#publishing + (countsLate ? this.#late : 0) < depth;
  }

  /** Whether one page more may be published and not settled. */
  get hasRoom(): boolean {
    const { depth, pageSize } = this.#options;
    return this.#inFlight + pageSize <= depth * pageSize;
  }

  /** A page is going to be published. */
  enter(): void {
    this.#publishing += 1;
    this.#inFlight += this.#options.pageSize;
  }

  /** Nothing came of that page. */
  leave(): void {
    this.#publishing -= 1;
    this.free(this.#options.pageSize);
  }

  /** The publication of a page is over, but for so many slow calls. */
  published(late: number): void {
    this.#publishing -= 1;
    this.#late += late;
    this.freed.ring();
  }

  /** A slow call is waited for, in room of its own. */
  awaitLate(): void {
    this.#inFlight += this.#options.pageSize;
  }

  /** That call has been answered. */
  answeredLate(): void {
    this.#late -= 1;
    this.freed.ring();
  }

  /** So many messages are settled, or were never there. */
  free(messages: number): void {
    this.#inFlight -= messages;
    this.freed.ring();
  }
}

import { Bell } from '../util/async.js';

/** The limits for a pipeline's work in progress. */
export interface CapacityOptions {
  readonly pageSize: number;
  /**
   * How many pages can be published at once. The messages that are published but not settled can also fill as many
   * pages.
   */
  readonly depth: number;
  /**
   * Whether a slow call counts as a page that is being published. If a page is published by several calls, it does not.
   * Such a page makes its next call while the slow one is waiting, and counts once.
   */
  readonly countsLate: boolean;
}

/** Counts a pipeline's work in progress. A page counts as a full page until its messages are known. */
export class Capacity {
  /** Rings when there may be room for another page. */
  readonly freed = new Bell();
  readonly #options: CapacityOptions;
  /** How many pages are being published, or have entered to be published. */
  #publishing = 0;
  /** How many messages are published but not settled, including the reserved room. */
  #inFlight = 0;
  /** How many slow calls have not been answered. */
  #late = 0;

  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Whether the pipeline waits for a slow call. */
  get isLate(): boolean {
    return this.#late > 0;
  }

  /** Whether one more page can be published at the same time. */
  get mayCall(): boolean {
    const { depth, countsLate } = this.#options;
    return this.#publishing + (countsLate ? this.#late : 0) < depth;
  }

  /** Whether there is room for one more page of messages that are published but not settled. */
  get hasRoom(): boolean {
    const { depth, pageSize } = this.#options;
    return this.#inFlight + pageSize <= depth * pageSize;
  }

  /** Reserves room for a page that will be published. */
  enter(): void {
    this.#publishing += 1;
    this.#inFlight += this.#options.pageSize;
  }

  /** Gives back the room of a page that is not published after all. */
  leave(): void {
    this.#publishing -= 1;
    this.free(this.#options.pageSize);
  }

  /** Records that the publication of a page has ended, except for `late` slow calls. */
  published(late: number): void {
    this.#publishing -= 1;
    this.#late += late;
    this.freed.ring();
  }

  /** Reserves room for a slow call that is waited for. */
  awaitLate(): void {
    this.#inFlight += this.#options.pageSize;
  }

  /** Records that a slow call was answered. */
  answeredLate(): void {
    this.#late -= 1;
    this.freed.ring();
  }

  /** Frees the room for `messages` messages, which are settled or never existed. */
  free(messages: number): void {
    this.#inFlight -= messages;
    this.freed.ring();
  }
}

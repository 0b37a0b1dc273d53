import { Bell } from '../util/async.js';

/** The limits on a pipeline's work in progress. */
export interface CapacityOptions {
  readonly pageSize: number;
  /**
   * How many pages can be published at once. At any time, the messages that are being published or settled can fill at
   * most this many pages.
   */
  readonly depth: number;
  /**
   * Whether a slow call counts as a page that is being published. It does not if a page is published with several
   * calls. Such a page makes its next call while the slow call is waiting, and counts only once.
   */
  readonly countsLate: boolean;
}

/** Counts a pipeline's work in progress. A page counts as a full page until its actual size is known. */
export class Capacity {
  /** Rings when there may be room for another page. */
  readonly freed = new Bell();
  readonly #options: CapacityOptions;
  /** How many pages are being published, or have reserved room for that. */
  #publishing = 0;
  /**
   * How many messages are being published or are not settled yet, including the room that is reserved for more
   * messages.
   */
  #inFlight = 0;
  /** How many slow calls have not been answered. */
  #late = 0;

  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Whether the pipeline is waiting for a slow call. */
  get isLate(): boolean {
    return this.#late > 0;
  }

  /** Whether one more page can be published at the same time. */
  get mayCall(): boolean {
    const { depth, countsLate } = this.#options;
    return this.#publishing + (countsLate ? this.#late : 0) < depth;
  }

  /** Whether there is room for the messages of one more page. */
  get hasRoom(): boolean {
    const { depth, pageSize } = this.#options;
    return this.#inFlight + pageSize <= depth * pageSize;
  }

  /** Reserves room for a page that will be published. */
  enter(): void {
    this.#publishing += 1;
    this.#inFlight += this.#options.pageSize;
  }

  /** Releases the room that was reserved for a page that is not published after all. */
  leave(): void {
    this.#publishing -= 1;
    this.free(this.#options.pageSize);
  }

  /**
   * Records that the publication of a page has ended. `late` is the number of its slow calls that are still in flight.
   */
  published(late: number): void {
    this.#publishing -= 1;
    this.#late += late;
    this.freed.ring();
  }

  /** Reserves room for a slow call whose answer is still to come. */
  awaitLate(): void {
    this.#inFlight += this.#options.pageSize;
  }

  /** Records that a slow call was answered. */
  answeredLate(): void {
    this.#late -= 1;
    this.freed.ring();
  }

  /** Releases room for this many messages, because they were settled, or because a page was not full. */
  free(messages: number): void {
    this.#inFlight -= messages;
    this.freed.ring();
  }
}

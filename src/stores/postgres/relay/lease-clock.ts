import { MessengerError } from '../../../core/errors.js';
import { textOf } from '../../../core/util/error-text.js';

/** The longest interval at which a relay checks whether other relays have started or stopped. In milliseconds. */
const LONGEST_BLINK = 1_000;

/**
 * Tracks by this process's own clock whether a lease is still held, and reports when it ends. Durations are in
 * milliseconds.
 */
export class LeaseClock {
  /**
   * How long this process relies on a renewal, counted from just before it was sent. In the database, the lease lasts
   * longer.
   */
  readonly #trusted: number;
  readonly #lost = new AbortController();
  readonly #heartbeat: ReturnType<typeof setInterval>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #renewedAt = 0;

  /** @param beat is called repeatedly until the lease is lost. */
  constructor(lease: number, sentAt: number, beat: () => void) {
    this.#trusted = lease * 0.8;
    this.renewed(sentAt);
    this.#heartbeat = setInterval(beat, Math.min(lease / 6, LONGEST_BLINK));
    this.#heartbeat.unref();
  }

  /** Aborts when the lease is lost, or was not renewed in time. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** The time since the lease was last renewed. */
  get age(): number {
    return performance.now() - this.#renewedAt;
  }

  /** Call this when a statement that was sent at `sentAt` has renewed the lease. */
  renewed(sentAt: number): void {
    this.#renewedAt = sentAt;
    clearTimeout(this.#timer);
    const left = sentAt + this.#trusted - performance.now();
    this.#timer = setTimeout(
      () => {
        this.#expire();
      },
      Math.max(0, left),
    );
    this.#timer.unref();
  }

  /**
   * Checks the clock, because a process that was frozen gets here before its timers run. If an error arrived meanwhile,
   * the reason mentions it. The error is not set as the `cause`, because the end of the lease may have led to it.
   */
  look(meanwhile?: unknown): void {
    if (this.age >= this.#trusted) this.#expire(meanwhile);
  }

  lose(why: string, cause?: unknown): void {
    this.stop();
    if (!this.#lost.signal.aborted) this.#lost.abort(new MessengerError('LEASE_LOST', why, { cause }));
  }

  /** Stops the timers. */
  stop(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeat);
  }

  #expire(meanwhile?: unknown): void {
    const more = meanwhile === undefined ? '' : `: ${textOf(meanwhile)}`;
    this.lose(`the lease was not renewed in time${more}`);
  }
}

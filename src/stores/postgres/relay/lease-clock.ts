import { MessengerError } from '../../../core/errors.js';
import { textOf } from '../../../core/util/error-text.js';

/** How often, at the latest, a relay looks whether others have come or gone. Milliseconds. */
const LONGEST_BLINK = 1_000;

/** Whether a lease is held, by this process's own clock, and how it ends. Durations are in milliseconds. */
export class LeaseClock {
  /** How long a renewal is trusted, counted from before it was sent. Less than the database trusts it. */
  readonly #trusted: number;
  readonly #lost = new AbortController();
  readonly #heartbeat: ReturnType<typeof setInterval>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #renewedAt = 0;

  /** @param beat Called repeatedly until the lease is lost. */
  constructor(lease: number, sentAt: number, beat: () => void) {
    this.#trusted = lease * 0.8;
    this.renewed(sentAt);
    this.#heartbeat = setInterval(beat, Math.min(lease / 6, LONGEST_BLINK));
    this.#heartbeat.unref();
  }

  /** Aborted when the lease is lost, or was found not to be renewed in time. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** How long ago the lease was renewed. */
  get age(): number {
    return performance.now() - this.#renewedAt;
  }

  /** Called when a statement that was sent at that time has renewed the lease. */
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
   * Looks at the clock, because a process that was frozen gets here before its timers run. An error that arrived
   * meanwhile is mentioned, but it is not the reason: the end of the lease may have caused it.
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

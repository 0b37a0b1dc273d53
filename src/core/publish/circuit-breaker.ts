import { isUnanswered } from './calls.js';
import type { Clock } from '../util/clock.js';
import { backoff, type Backoff } from './retry-policy.js';
import { Bell } from '../util/async.js';

/** How publishing to a destination does, at this moment. */
export interface CircuitStatus {
  /**
   * `closed`: messages are published. `open`: nothing is, until `retryAt`. `half-open`: a few messages
   * are on their way to find out, and everything else waits for their answer.
   *
   * It opens on a failure of the connection, when a call has no answer in time and no other was acknowledged meanwhile, when most of a batch fails alike, after the fourth refusal
   * alike on end of a topic, and while `maxParked` messages of a topic wait (then retries go on).
   */
  readonly state: 'closed' | 'open' | 'half-open';
  /** Failures of the broker since something was last acknowledged. */
  readonly failures: number;
  /** Since when it has not been closed. */
  readonly since?: Date;
  /** When the broker is tried next; absent while messages wait for others to drain. */
  readonly retryAt?: Date;
  /** What it is open for. */
  readonly error?: Error;
  /** Since when the publisher has not answered the oldest call in flight; absent while none is. */
  readonly waitingSince?: Date;
}

/** The leave to send one request. */
export interface Pass {
  /** The request finds out whether the broker is back: it should be small. */
  readonly probe: boolean;
  /** Counts how often the circuit has opened: what was sent before it did says nothing of how it is now. */
  readonly opened: number;
}

/** What came of a request. */
export interface Answer {
  /** Whether anything was acknowledged. */
  readonly acknowledged: boolean;
  /** The failure of the broker, what failures like it have in common, and whether it can be nothing else. */
  readonly outage?: { readonly error: Error; readonly signature: string; readonly certain: boolean } | undefined;
}

/** Who may send, and when: what `publishPage` needs of a circuit. */
export interface Gate {
  /**
   * Asks for leave without waiting. Who is `patient` lets others find out whether the broker is back:
   * messages that failed before say little of it.
   */
  tryEnter(patient: boolean): Pass | undefined;
  /** Waits for leave; `undefined` when a signal aborts first. */
  enter(patient: boolean, ...signals: readonly AbortSignal[]): Promise<Pass | undefined>;
  /** Gives the leave back, with the answer; without one when nothing was sent. */
  leave(pass: Pass, answer?: Answer): void;
  /** What the failures had in common that it is open for. */
  readonly signature: string | undefined;
}

/** What a circuit tells of itself. Milliseconds. */
export interface CircuitListener {
  paused(reason: 'broker' | 'limit', error: Error, failures: number, retryIn?: number): void;
  resumed(reason: 'broker' | 'limit', pausedFor: number): void;
}

/** Why and since when, by the clock. */
interface Pause {
  readonly error: Error;
  readonly since: number;
}

/**
 * A circuit breaker (Nygard, "Release It!", 2007) for one destination: while the broker as a whole
 * fails, one request at a time finds out whether it is back, with backoff between them.
 */
export class Circuit implements Gate {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #listener: CircuitListener;
  readonly #changed = new Bell();
  #broken: (Pause & { readonly signature: string; readonly retryIn: number; readonly retryAt: number }) | undefined;
  #held: Pause | undefined;
  /** Requests in flight that find out whether the broker is back. */
  #probes = 0;
  /** When another one may, although none of these was answered. */
  #nextProbeAt = Infinity;
  /** How many wait that are not patient. */
  #impatient = 0;
  #opened = 0;
  #failures = 0;

  constructor(options: { clock: Clock; backoff: Backoff; listener: CircuitListener }) {
    this.#clock = options.clock;
    this.#backoff = options.backoff;
    this.#listener = options.listener;
  }

  get status(): CircuitStatus {
    const broken = this.#broken;
    const pause = broken ?? this.#held;
    if (pause === undefined) return { state: 'closed', failures: this.#failures };
    // Dates of this moment: the wall clock may have been set since.
    const date = (time: number) => new Date(Date.now() + time - this.#clock.now());
    return {
      state: this.#probes > 0 ? 'half-open' : 'open',
      failures: this.#failures,
      since: date(pause.since),
      error: pause.error,
      ...(broken && { retryAt: date(broken.retryAt) }),
    };
  }

  get signature(): string | undefined {
    return this.#broken?.signature;
  }

  tryEnter(patient: boolean): Pass | undefined {
    return this.#broken === undefined
      ? { probe: false, opened: this.#opened }
      : this.#tryProbe(patient, this.#broken.retryAt, this.#clock.now());
  }

  async enter(patient: boolean, ...signals: readonly AbortSignal[]): Promise<Pass | undefined> {
    while (!signals.some(({ aborted }) => aborted)) {
      if (this.#broken === undefined) return this.tryEnter(patient);
      // Read once: what is not due for the one who asks must not have become due for the one who waits.
      const now = this.#clock.now();
      const { retryAt } = this.#broken;
      const pass = this.#tryProbe(patient, retryAt, now);
      if (pass !== undefined) return pass;
      await this.#wait(patient, (this.#probes > 0 ? this.#nextProbeAt : retryAt) - now, signals);
    }
    return undefined;
  }

  #tryProbe(patient: boolean, retryAt: number, now: number): Pass | undefined {
    const isHeld = this.#probes > 0 && now < this.#nextProbeAt;
    if (isHeld || now < retryAt || (patient && this.#impatient > 0)) return undefined;
    this.#probes += 1;
    // One message that is never answered must not keep others from finding out.
    const { error, retryIn } = this.#broken ?? {};
    const isSilent = error !== undefined && isUnanswered(error);
    this.#nextProbeAt = isSilent && retryIn !== undefined ? now + retryIn : Infinity;
    return { probe: true, opened: this.#opened };
  }

  async #wait(patient: boolean, left: number, signals: readonly AbortSignal[]): Promise<void> {
    // For others to answer, where it is not the time that is waited for.
    const ms = left > 0 ? left : Infinity;
    if (!patient) this.#impatient += 1;
    await this.#changed.wait(this.#clock, ms, ...signals);
    if (!patient) this.#impatient -= 1;
  }

  leave(pass: Pass, answer?: Answer): void {
    if (pass.opened !== this.#opened) return;
    if (pass.probe) this.#probes -= 1;
    if (answer?.acknowledged === true) this.#failures = 0;
    if (answer?.outage !== undefined) this.#open(answer.outage);
    else if (answer !== undefined && pass.probe) this.#close();
    if (pass.probe) this.#changed.ring();
  }

  /** Lets nothing new be published: messages wait for others to drain. */
  hold(error: Error): void {
    this.#held ??= { error, since: this.#clock.now() };
    this.#listener.paused('limit', error, this.#failures);
  }

  /** Ends `hold`. */
  release(): void {
    if (this.#held === undefined) return;
    const { since } = this.#held;
    this.#held = undefined;
    this.#listener.resumed('limit', this.#clock.now() - since);
  }

  #open({ error, signature }: NonNullable<Answer['outage']>): void {
    this.#opened += 1;
    this.#probes = 0;
    this.#failures += 1;
    const now = this.#clock.now();
    const retryIn = backoff(this.#failures, this.#backoff, this.#clock);
    this.#broken = { error, signature, since: this.#broken?.since ?? now, retryIn, retryAt: now + retryIn };
    this.#listener.paused('broker', error, this.#failures, retryIn);
  }

  #close(): void {
    if (this.#broken === undefined) return;
    const { since } = this.#broken;
    this.#broken = undefined;
    this.#listener.resumed('broker', this.#clock.now() - since);
  }
}

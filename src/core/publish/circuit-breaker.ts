import { isUnanswered } from './calls.js';
import type { Clock } from '../util/clock.js';
import { backoff, type Backoff } from './retry-policy.js';
import { Bell } from '../util/async.js';

/** The current state of publishing to a destination. */
export interface CircuitStatus {
  /**
   * The state of the circuit:
   *
   * - `closed`: messages are published.
   * - `open`: no message is published until `retryAt`. If the circuit is open because of `maxParked`, only new messages
   *   are held back, and retries continue.
   * - `half-open`: a few messages are sent to find out whether the broker is back. All others wait for the answer.
   *
   * The circuit opens in these cases:
   *
   * - The connection fails.
   * - A call is not answered in time, and no other call is acknowledged in the meantime.
   * - Most messages in a batch fail with similar errors.
   * - A topic gets its fourth similar rejection in a row.
   * - `maxParked` messages with the same topic are waiting.
   */
  readonly state: 'closed' | 'open' | 'half-open';
  /** How many times the broker has failed since it last acknowledged a message. */
  readonly failures: number;
  /** When the circuit left the `closed` state. Absent while it is closed. */
  readonly since?: Date;
  /**
   * When the relay next tries the broker. Absent while the circuit is closed, or is open only because of `maxParked`.
   */
  readonly retryAt?: Date;
  /** The error that opened the circuit. Absent while the circuit is closed. */
  readonly error?: Error;
  /** When the oldest call in flight began. Absent while no call is in flight. */
  readonly waitingSince?: Date;
}

/** Permission to send one request. */
export interface Pass {
  /** Whether the request is a probe, which finds out whether the broker is back. A probe should be small. */
  readonly probe: boolean;
  /**
   * How many times the circuit had opened when the permission was granted. If it has opened again since then, the
   * answer to this request says nothing about the broker's current state.
   */
  readonly opened: number;
}

/** The outcome of a request. */
export interface Answer {
  /** Whether the broker acknowledged any message. */
  readonly acknowledged: boolean;
  /**
   * The broker outage that the request revealed, if any, with its error and its signature. `certain` is false if the
   * outage is only suspected.
   */
  readonly outage?: { readonly error: Error; readonly signature: string; readonly certain: boolean } | undefined;
}

/** Decides which callers can send, and when. It is the part of a circuit that `publishPage` uses. */
export interface Gate {
  /**
   * Requests permission without waiting. A `patient` caller lets other callers go first with their probes, because its
   * own messages have failed before, and so say little about the broker.
   */
  tryEnter(patient: boolean): Pass | undefined;
  /** Waits for permission. Resolves to `undefined` if a signal aborts first. */
  enter(patient: boolean, ...signals: readonly AbortSignal[]): Promise<Pass | undefined>;
  /** Returns the permission, with the answer to the request. `answer` is absent if nothing was sent. */
  leave(pass: Pass, answer?: Answer): void;
  /**
   * The signature of the failure that opened the circuit. `undefined` if the circuit is closed, or is open only because
   * of `maxParked`.
   */
  readonly signature: string | undefined;
}

/** Is notified when a circuit pauses and resumes publishing. Durations are in milliseconds. */
export interface CircuitListener {
  paused(reason: 'broker' | 'limit', error: Error, failures: number, retryIn?: number): void;
  resumed(reason: 'broker' | 'limit', pausedFor: number): void;
}

/** The reason why publishing is paused, and the time on the clock when the pause began. */
interface Pause {
  readonly error: Error;
  readonly since: number;
}

/**
 * A circuit breaker (Nygard, "Release It!", 2007) for one destination. During a broker outage, it lets through one
 * probe at a time to find out whether the broker is back, with backoff between the probes.
 */
export class Circuit implements Gate {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #listener: CircuitListener;
  readonly #changed = new Bell();
  #broken: (Pause & { readonly signature: string; readonly retryIn: number; readonly retryAt: number }) | undefined;
  #held: Pause | undefined;
  /** How many probes are in flight. */
  #probes = 0;
  /** When another probe can be sent even if the probes in flight have not been answered. */
  #nextProbeAt = Infinity;
  /** How many impatient callers are waiting for permission. */
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
    // Compute dates from the current wall clock, because it may have been changed since the pause began.
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
    if (patient) return this.#enter(patient, signals);
    // Count the caller until it has its permission. If it counted only while it sleeps, a patient caller that is woken
    // at the same time could enter first.
    this.#impatient += 1;
    try {
      return await this.#enter(patient, signals);
    } finally {
      this.#impatient -= 1;
      this.#changed.ring();
    }
  }

  async #enter(patient: boolean, signals: readonly AbortSignal[]): Promise<Pass | undefined> {
    while (!signals.some(({ aborted }) => aborted)) {
      if (this.#broken === undefined) return this.tryEnter(patient);
      // Read the clock only once. Otherwise, a probe that is not due yet in `#tryProbe` could be due a moment later in
      // `#wait`, which would then wait without a time limit.
      const now = this.#clock.now();
      const { retryAt } = this.#broken;
      const pass = this.#tryProbe(patient, retryAt, now);
      if (pass !== undefined) return pass;
      await this.#wait((this.#probes > 0 ? this.#nextProbeAt : retryAt) - now, signals);
    }
    return undefined;
  }

  #tryProbe(patient: boolean, retryAt: number, now: number): Pass | undefined {
    const isHeld = this.#probes > 0 && now < this.#nextProbeAt;
    if (isHeld || now < retryAt || (patient && this.#impatient > 0)) return undefined;
    this.#probes += 1;
    // A probe that is never answered must not prevent other probes forever.
    const { error, retryIn } = this.#broken ?? {};
    const isSilent = error !== undefined && isUnanswered(error);
    this.#nextProbeAt = isSilent && retryIn !== undefined ? now + retryIn : Infinity;
    return { probe: true, opened: this.#opened };
  }

  async #wait(left: number, signals: readonly AbortSignal[]): Promise<void> {
    // Without a time limit, a caller waits until another caller's probe is answered, or until an impatient caller has
    // entered or has stopped waiting.
    await this.#changed.wait(this.#clock, left > 0 ? left : Infinity, ...signals);
  }

  leave(pass: Pass, answer?: Answer): void {
    if (pass.opened !== this.#opened) return;
    if (pass.probe) this.#probes -= 1;
    if (answer?.acknowledged === true) this.#failures = 0;
    if (answer?.outage !== undefined) this.#open(answer.outage);
    else if (answer !== undefined && pass.probe) this.#close();
    if (pass.probe) this.#changed.ring();
  }

  /** Opens the circuit for new messages, because too many messages are waiting. */
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

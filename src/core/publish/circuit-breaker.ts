import { isUnanswered } from './calls.js';
import type { Clock } from '../util/clock.js';
import { backoff, type Backoff } from './retry-policy.js';
import { Bell } from '../util/async.js';

/** The state of publishing to a destination at this moment. */
export interface CircuitStatus {
  /**
   * `closed`: messages are published. `open`: no message is published until `retryAt`. `half-open`: a few messages are
   * sent to find out whether the broker is back, and all others wait for their answer.
   *
   * The circuit opens if the connection fails, if a call is not answered in time while no other call is acknowledged,
   * or if most messages in a batch fail alike. It also opens at the fourth similar refusal in a row in one topic. It is
   * also open while `maxParked` messages of a topic wait. Retries go on then.
   */
  readonly state: 'closed' | 'open' | 'half-open';
  /** How many times the broker has failed since it last acknowledged a message. */
  readonly failures: number;
  /** Since when the circuit has not been closed. */
  readonly since?: Date;
  /** When the relay tries the broker next. Absent while the circuit is closed, or open only because of `maxParked`. */
  readonly retryAt?: Date;
  /** The error for which the circuit is open. */
  readonly error?: Error;
  /** Since when the relay has waited for the answer to the oldest call in flight. Absent while no call is in flight. */
  readonly waitingSince?: Date;
}

/** Permission to send one request. */
export interface Pass {
  /** The request finds out whether the broker is back, so it should be small. */
  readonly probe: boolean;
  /**
   * How often the circuit had opened when the permission was given. If it has opened again since, the answer to this
   * request says nothing about the present state of the broker.
   */
  readonly opened: number;
}

/** The outcome of a request. */
export interface Answer {
  /** Whether the broker acknowledged any message. */
  readonly acknowledged: boolean;
  /**
   * The failure of the broker as a whole, if there was one. It has the error, the signature that such failures share,
   * and whether the failure of the broker is certain.
   */
  readonly outage?: { readonly error: Error; readonly signature: string; readonly certain: boolean } | undefined;
}

/** Decides who can send, and when. `publishPage` needs no more from a circuit. */
export interface Gate {
  /**
   * Asks for permission without waiting. A `patient` caller leaves it to others to find out whether the broker is back,
   * because messages that failed before say little about the broker.
   */
  tryEnter(patient: boolean): Pass | undefined;
  /** Waits for permission. Resolves to `undefined` if a signal aborts first. */
  enter(patient: boolean, ...signals: readonly AbortSignal[]): Promise<Pass | undefined>;
  /** Gives the permission back, with the answer. Without an answer, nothing was sent. */
  leave(pass: Pass, answer?: Answer): void;
  /** The signature of the failures for which the circuit is open, or `undefined` if it is not open for failures. */
  readonly signature: string | undefined;
}

/** Learns when a circuit pauses and resumes publishing. Durations are in milliseconds. */
export interface CircuitListener {
  paused(reason: 'broker' | 'limit', error: Error, failures: number, retryIn?: number): void;
  resumed(reason: 'broker' | 'limit', pausedFor: number): void;
}

/** Why publishing is paused, and since when by the clock. */
interface Pause {
  readonly error: Error;
  readonly since: number;
}

/**
 * A circuit breaker (Nygard, "Release It!", 2007) for one destination. While the broker as a whole fails, one request
 * at a time finds out whether it is back, with backoff between these requests.
 */
export class Circuit implements Gate {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #listener: CircuitListener;
  readonly #changed = new Bell();
  #broken: (Pause & { readonly signature: string; readonly retryIn: number; readonly retryAt: number }) | undefined;
  #held: Pause | undefined;
  /** How many requests in flight are probes, which find out whether the broker is back. */
  #probes = 0;
  /** The time from which another probe can be sent although the probes in flight have not been answered. */
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
    // Compute dates from the present wall clock, because somebody may have set it since the pause began.
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
    // Count the caller until it has its permission. Otherwise it would count only while it sleeps, and a patient caller
    // that is woken at the same time could be first.
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
      // Read the clock once. Otherwise a retry that is not due in `#tryProbe` could be due a moment later in `#wait`,
      // which would then wait without a time limit.
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
    // A message that is never answered must not keep other messages from finding out whether the broker is back.
    const { error, retryIn } = this.#broken ?? {};
    const isSilent = error !== undefined && isUnanswered(error);
    this.#nextProbeAt = isSilent && retryIn !== undefined ? now + retryIn : Infinity;
    return { probe: true, opened: this.#opened };
  }

  async #wait(left: number, signals: readonly AbortSignal[]): Promise<void> {
    // A caller without a time limit waits until another caller's request is answered, or until a caller that goes first
    // has entered or given up.
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

  /** Pauses the publishing of new messages until waiting messages have drained. */
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

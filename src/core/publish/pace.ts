import type { Clock } from '../util/clock.js';
import { PublishError } from '../errors.js';
import type { PublishOptions, PublishResult } from '../contracts/publisher.js';

/** No call counts as slow before this time has passed, even if other calls are fast. Milliseconds. */
const SHORTEST_PATIENCE = 1_000;

/** A call is slow if it takes this many times as long as a typical call. */
const SLOW = 10;

/**
 * The fraction by which each new duration moves the typical duration, up or down. So the typical duration follows the
 * median, and a single call cannot move it far.
 */
const STEP = 0.1;

type Results = readonly PublishResult[];

/**
 * Stands for a missing answer. Either the page has stopped waiting for the publisher's answer to this message, or the
 * message was not sent because an earlier message with the same key has no answer yet.
 */
export class Outstanding extends PublishError {
  /**
   * The promise of all the slow call's results, and the index of this message in them. Absent if the message was not
   * sent.
   */
  readonly call: { readonly results: Promise<Results>; readonly place: number } | undefined;

  constructor(call?: Outstanding['call']) {
    super('the broker has not answered yet', { kind: 'retryable' });
    this.call = call;
  }
}

/** The options that the engine passes to its own batch form. */
export interface CallOptions extends PublishOptions {
  /** If given, a message whose call is slow gets the result `Outstanding`. */
  readonly pace?: Pace | undefined;
}

/** A call that has no answer yet, and is not known to be slow yet. */
interface Call {
  /** The call's position in the order in which calls began, counted from 1. */
  readonly place: number;
  readonly begunAt: number;
  readonly onSlow: () => void;
}

/** Learns how long calls for one destination usually take, and detects calls that are slow in comparison. */
export class Pace {
  /** How many milliseconds a call can take before it counts as failed. */
  readonly timeout: number;
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #calls = new Set<Call>();
  #places = 0;
  /**
   * The `place` of the acknowledged call that began last. It shows that the broker is answering, so calls that began
   * earlier are overdue.
   */
  #acknowledged = 0;
  #typical = 0;
  #cancel: (() => void) | undefined;
  /** Whether a call has taken longer than `patience`, but no call that began after it has been acknowledged. */
  #isDoubted = false;

  constructor({ clock, timeout }: { clock: Clock; timeout: number }) {
    this.#clock = clock;
    this.timeout = timeout;
  }

  /** How many milliseconds a call can take before it is slow: at most half of the call's timeout. */
  get patience(): number {
    return Math.min(this.timeout / 2, Math.max(SHORTEST_PATIENCE, SLOW * this.#typical));
  }

  /**
   * Resolves to the results of a call with `count` messages. If the call is slow, resolves early, to `Outstanding` for
   * each message. A call is slow once it has taken longer than `patience` and a call that began after it has been
   * acknowledged. Without such a later call, the broker itself may be hanging.
   *
   * @param results Must not reject.
   */
  patiently(results: Promise<Results>, count: number): Promise<Results> {
    return new Promise((resolve) => {
      const call: Call = {
        place: (this.#places += 1),
        begunAt: this.#clock.now(),
        onSlow: () => {
          resolve(Array.from({ length: count }, (_, place) => outstanding({ results, place })));
        },
      };
      this.#calls.add(call);
      if (this.#cancel === undefined) this.#arm(this.patience);
      void results.then((all) => {
        this.#answered(call, all);
        resolve(all);
      });
    });
  }

  #answered(call: Call, results: Results): void {
    this.#calls.delete(call);
    if (results.some(({ acknowledged }) => acknowledged)) {
      const duration = this.#clock.now() - call.begunAt;
      const isLonger = duration > this.#typical;
      this.#typical = this.#typical === 0 ? duration : this.#typical * (isLonger ? 1 + STEP : 1 - STEP);
      this.#acknowledged = Math.max(this.#acknowledged, call.place);
      if (this.#isDoubted) this.#look();
    }
    // A remaining timer would keep the process alive.
    if (this.#calls.size === 0) this.#disarm();
  }

  /** Reports the slow calls, and sets a timer for the moment when the next call can become slow. */
  #look(): void {
    this.#disarm();
    this.#isDoubted = false;
    const { patience } = this;
    for (const call of [...this.#calls]) {
      const left = call.begunAt + patience - this.#clock.now();
      if (left > 0) {
        this.#arm(left);
        return;
      }
      if (call.place < this.#acknowledged) {
        this.#calls.delete(call);
        call.onSlow();
      } else this.#isDoubted = true;
    }
  }

  #arm(ms: number): void {
    this.#cancel = this.#clock.setTimeout(() => {
      this.#look();
    }, ms);
  }

  #disarm(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}

export function outstanding(call?: Outstanding['call']): PublishResult {
  return { acknowledged: false, error: new Outstanding(call) };
}

import type { Clock } from '../util/clock.js';
import { PublishError } from '../errors.js';
import type { PublishOptions, PublishResult } from '../contracts/publisher.js';

/** No call is slow before that, however fast the others are. Milliseconds. */
const SHORTEST_PATIENCE = 1_000;

/** A call is slow that takes so many times as long as a call usually does. */
const SLOW = 10;

/** By what part the typical duration moves towards each new one: it follows their median, and no single one moves it far. */
const STEP = 0.1;

type Results = readonly PublishResult[];

/** Stands for the answer to a message that its page waits for no longer, or to one that is not sent, behind such a message. */
export class Outstanding extends PublishError {
  /** All results of the call, once it is over, and the place among them; absent when the message is not sent. */
  readonly call: { readonly results: Promise<Results>; readonly place: number } | undefined;

  constructor(call?: Outstanding['call']) {
    super('the broker has not answered yet', { kind: 'retryable' });
    this.call = call;
  }
}

/** What the engine tells a batch form of its own. */
export interface CallOptions extends PublishOptions {
  /** Given where a message whose call is slow is to be answered by `Outstanding`. */
  readonly pace?: Pace | undefined;
}

/** A call that has not been answered, and is not slow yet. */
interface Call {
  /** Counted from the first. */
  readonly place: number;
  readonly begunAt: number;
  readonly onSlow: () => void;
}

/** How long calls of one destination usually take, and which of them are slow against that. */
export class Pace {
  /** When a call counts as failed. Milliseconds. */
  readonly timeout: number;
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #calls = new Set<Call>();
  #places = 0;
  /** The last begun of those that were acknowledged: the broker answers, and those before it are late. */
  #acknowledged = 0;
  #typical = 0;
  #cancel: (() => void) | undefined;
  /** Whether a call has taken long, and nothing that was begun after it was acknowledged. */
  #isDoubted = false;

  constructor({ clock, timeout }: { clock: Clock; timeout: number }) {
    this.#clock = clock;
    this.timeout = timeout;
  }

  /** How long a call may take before it is slow, in milliseconds: never more than half of its timeout. */
  get patience(): number {
    return Math.min(this.timeout / 2, Math.max(SHORTEST_PATIENCE, SLOW * this.#typical));
  }

  /**
   * The results of a call of so many messages; or `Outstanding` for each as soon as it is slow: it takes longer than
   * `patience`, and one that was begun after it was acknowledged. Otherwise it may be the broker that hangs.
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
    // No timer is left that would keep a process alive.
    if (this.#calls.size === 0) this.#disarm();
  }

  /** Tells the calls that are slow, and comes again when the next one may be. */
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

import type { Clock } from '../util/clock.js';
import { durationOf, textOf } from '../util/error-text.js';
import { isUnanswered } from '../publish/calls.js';
import { codeOf, hasCode, MessengerError, PublishError } from '../errors.js';
import { classify, type FailureTable, NETWORK_FAILURES } from '../publish/failure-kinds.js';
import { signatureOf } from '../util/error-signature.js';
import type { ErrorLogger } from '../contracts/logger.js';

/** The interval at which an ongoing problem is logged again. Milliseconds. */
const AGAIN = 60_000;

/** How many similar errors are logged individually within `AGAIN`. */
const ONE_BY_ONE = 10;

/** How many short outages are logged within `AGAIN`. */
const OUTAGES = 5;

/**
 * How many kinds of errors are remembered. Beyond that, the oldest are forgotten, and logged as new if they occur
 * again.
 */
const MAX_KINDS = 1_000;

interface Kind {
  readonly since: number;
  told: number;
  more: number;
}

/**
 * Logs frequent errors without flooding the log. It counts each kind of error separately, so a new kind is logged
 * immediately, even while others are held back.
 */
export class Alike {
  readonly #logger: ErrorLogger;
  readonly #clock: Clock;
  readonly #kinds = new Map<string, Kind>();

  constructor(logger: ErrorLogger, clock: Clock) {
    this.#logger = logger;
    this.#clock = clock;
  }

  /**
   * @param errorOf Creates the error. `more` says how many similar errors were not logged, and is empty if there were
   *   none.
   */
  tell(signature: string, errorOf: (more: string) => Error): void {
    const now = this.#clock.now();
    const kind = this.#kinds.get(signature);
    if (kind !== undefined && now - kind.since < AGAIN) {
      if (kind.told === ONE_BY_ONE) {
        kind.more += 1;
        return;
      }
      kind.told += 1;
      this.#logger.error(errorOf(''));
      return;
    }
    const more = kind?.more ?? 0;
    this.#kinds.delete(signature);
    // From now on, if these errors continue at this rate, only one of them is logged in each interval.
    this.#kinds.set(signature, { since: now, told: more > 0 ? ONE_BY_ONE : 1, more: 0 });
    if (this.#kinds.size > MAX_KINDS)
      for (const oldest of [...this.#kinds.keys()].slice(0, 1)) this.#kinds.delete(oldest);
    const since = kind === undefined ? '' : durationOf(now - kind.since);
    this.#logger.error(errorOf(more === 0 ? '' : ` (and ${String(more)} more like it in ${since})`));
  }

  /** Logs an error. If similar errors were not logged, their number is added to the message. */
  tellError(error: Error): void {
    this.tell(signatureOf(error, 'retryable'), (more) => {
      if (more === '') return error;
      return new MessengerError(codeOf(error) ?? 'DATASTORE_FAILED', `${textOf(error)}${more}`, { cause: error });
    });
  }
}

/** The systems that can have an outage. */
export type OutageOf = 'broker' | 'datastore';

/** The state of an outage. */
export interface OutageStatus {
  readonly since: number;
  readonly error: Error;
}

/**
 * Logs the outages of a broker or a datastore. Each outage is logged when it starts, once a minute while it lasts, at
 * once when its reason changes, and when it is over. If there are many short outages, only a few are logged each
 * minute.
 */
export class Outages {
  readonly #of: OutageOf;
  readonly #logger: ErrorLogger;
  readonly #clock: Clock;
  #now:
    { readonly since: number; readonly isSilent: boolean; error: Error; attempts: number; isTold: boolean } | undefined;
  /** When each reason was last logged. */
  readonly #toldAt = new Map<string, number>();
  /** The end times of the outages that were logged. */
  #endedAt: number[] = [];

  constructor(of: OutageOf, logger: ErrorLogger, clock: Clock) {
    this.#of = of;
    this.#logger = logger;
    this.#clock = clock;
  }

  /** The current outage, or `undefined` if there is none. */
  get status(): OutageStatus | undefined {
    return this.#now;
  }

  /** Records that an attempt failed. @param retryIn Milliseconds until the next attempt. */
  failed(error: Error, retryIn: number | undefined): void {
    const now = this.#clock.now();
    const outage = (this.#now ??= { since: now, isSilent: isSilent(error), error, attempts: 0, isTold: false });
    outage.attempts += 1;
    outage.error = error;
    const signature = signatureOf(error, 'connection');
    const toldAt = this.#toldAt.get(signature);
    if (toldAt !== undefined && now - toldAt < AGAIN) return;
    this.#toldAt.delete(signature);
    this.#toldAt.set(signature, now);
    if (this.#toldAt.size > MAX_KINDS)
      for (const oldest of [...this.#toldAt.keys()].slice(0, 1)) this.#toldAt.delete(oldest);
    const lasts = outage.attempts === 1 ? undefined : now - outage.since;
    outage.isTold = true;
    this.#logger.error(this.#errorOf(error, lasts, outage.attempts, retryIn));
  }

  /** Records that an attempt succeeded, which ends the outage. */
  over(): void {
    if (this.#now === undefined) return;
    const { since, isTold, isSilent: wasSilent, attempts } = this.#now;
    this.#now = undefined;
    if (!isTold) return;
    const now = this.#clock.now();
    this.#endedAt = [...this.#endedAt.filter((time) => now - time < AGAIN), now];
    if (this.#endedAt.length < OUTAGES) this.#toldAt.clear();
    const after = `after ${durationOf(now - since)} (attempts: ${String(attempts)})`;
    this.#logger.info?.(`the ${this.#of} ${wasSilent ? 'answers' : 'works'} again ${after}`);
  }

  #errorOf(error: Error, lasts: number | undefined, attempts: number, retryIn: number | undefined): Error {
    const silent = isSilent(error);
    const starts = silent ? 'does not answer' : 'fails';
    const goesOn = silent ? 'has not answered' : 'has failed';
    const what = lasts === undefined ? starts : `${goesOn} for ${durationOf(lasts)} (attempts: ${String(attempts)})`;
    const next = retryIn === undefined ? '' : `, trying again in ${durationOf(retryIn)}`;
    const text = `the ${this.#of} ${what}: ${textOf(error)}${next}`;
    if (this.#of === 'broker') return new PublishError(text, { kind: 'connection', cause: error });
    return new MessengerError(codeOf(error) ?? 'DATASTORE_FAILED', text, { cause: error });
  }
}

/** Error codes for a broken connection, or for a server that is not available. */
const SILENT: FailureTable = {
  ...NETWORK_FAILURES,
  ECONNRESET: 'connection',
  ECONNABORTED: 'connection',
  EPIPE: 'connection',
  CONNECTION_CLOSED: 'connection',
  CONNECTION_ENDED: 'connection',
  CONNECTION_DESTROYED: 'connection',
  CONNECT_TIMEOUT: 'connection',
  // PostgreSQL's admin_shutdown, crash_shutdown, cannot_connect_now and connection exceptions
  '57P01': 'connection',
  '57P02': 'connection',
  '57P03': 'connection',
  '08000': 'connection',
  '08001': 'connection',
  '08003': 'connection',
  '08006': 'connection',
};

/** Whether an error means that there was no answer, rather than an answer with an error. */
function isSilent(error: Error): boolean {
  return hasCode(error, 'TIMEOUT') || isUnanswered(error) || classify(error, SILENT) !== undefined;
}

import type { Clock } from '../util/clock.js';
import { PublishError } from '../errors.js';

/** A call to a publisher that is in flight. */
export interface Call {
  readonly since: number;
  /** How many of the publisher's calls had been acknowledged when this call began. */
  readonly acknowledgements: number;
}

const unanswered = new WeakSet<Error>();
/**
 * Errors that only report that a message was not sent. `isBehind` is true if an earlier message with the same key is
 * the reason.
 */
const unsent = new WeakMap<Error, { readonly isBehind: boolean }>();

/**
 * Whether an error reports that a call was not answered in time, and that no other call to the publisher was
 * acknowledged in the meantime.
 */
export function isUnanswered(error: unknown): boolean {
  return error instanceof Error && unanswered.has(error);
}

/**
 * Whether an error only reports that a message was not sent, because other messages failed or the relay is stopping.
 */
export function isUnsent(error: Error): boolean {
  return unsent.has(error);
}

/** Whether an error reports that a message was not sent because a call for another key was not answered. */
export function isHeldUp(error: Error): boolean {
  return unsent.get(error)?.isBehind === false && isUnanswered(error.cause);
}

/** Creates the error for a message that was not sent. */
export function notSent(why: string, cause: unknown, isBehind = false): PublishError {
  const error = new PublishError(`not sent: ${why}`, { kind: 'retryable', cause });
  unsent.set(error, { isBehind });
  return error;
}

/**
 * Tracks the calls in flight to one publisher, and how long the oldest of them has been waiting. For a call that is not
 * answered in time, it decides whether only that call is slow, because other calls were acknowledged in the meantime,
 * or whether the publisher is not answering at all.
 */
export class Calls {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #inFlight = new Set<Call>();
  #acknowledgements = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many milliseconds the oldest call in flight has been waiting, or `undefined` if no call is in flight. */
  get waiting(): number | undefined {
    for (const { since } of this.#inFlight) return this.#clock.now() - since;
    return undefined;
  }

  begin(): Call {
    const call = { since: this.#clock.now(), acknowledgements: this.#acknowledgements };
    this.#inFlight.add(call);
    return call;
  }

  end(call: Call, isAcknowledged: boolean): void {
    this.#inFlight.delete(call);
    if (isAcknowledged) this.#acknowledgements += 1;
  }

  /** Creates the error for a call that was not answered in time. */
  tooLate({ acknowledgements }: Call, timeout: number): PublishError {
    const text = `the publisher did not answer within ${String(timeout)} ms`;
    const error = new PublishError(text, { kind: 'retryable' });
    if (acknowledgements === this.#acknowledgements) unanswered.add(error);
    return error;
  }
}

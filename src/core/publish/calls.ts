import type { Clock } from '../util/clock.js';
import { PublishError } from '../errors.js';

/** A call to a publisher that is in flight. */
export interface Call {
  readonly since: number;
  /** How many of the publisher's calls had been acknowledged when this call began. */
  readonly acknowledgements: number;
}

const unanswered = new WeakSet<Error>();
/** Errors that only say that a message was not sent. If `isBehind`, the reason is an earlier message of its key. */
const unsent = new WeakMap<Error, { readonly isBehind: boolean }>();

/**
 * Whether this is the error of a call that was not answered in time, while no other call of the publisher was
 * acknowledged.
 */
export function isUnanswered(error: unknown): boolean {
  return error instanceof Error && unanswered.has(error);
}

/** Whether an error only says that a message was not sent, because other messages fail or the relay is stopping. */
export function isUnsent(error: Error): boolean {
  return unsent.has(error);
}

/** Whether an error says that a message was not sent because a call for another key was not answered. */
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
 * The calls to one publisher that are in flight. It knows how long the relay has waited for the oldest call. If a call
 * is not answered in time, it decides whether only that call is slow. That is so if other calls are acknowledged
 * meanwhile. Otherwise the publisher answers no call.
 */
export class Calls {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #inFlight = new Set<Call>();
  #acknowledgements = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * How many milliseconds the relay has waited for the oldest call in flight, or `undefined` if no call is in flight.
   */
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

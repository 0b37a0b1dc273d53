import type { Clock } from '../util/clock.js';
import { PublishError } from '../errors.js';

/** A call of a publisher that is in flight. */
export interface Call {
  readonly since: number;
  /** What was acknowledged before it began, of all calls. */
  readonly acknowledgements: number;
}

const unanswered = new WeakSet<Error>();
/** Of errors that only say so, whether it was for an earlier message of the key. */
const unsent = new WeakMap<Error, { readonly isBehind: boolean }>();

/** Whether a call had no answer in time, and no other call of the publisher was acknowledged meanwhile. */
export function isUnanswered(error: unknown): boolean {
  return error instanceof Error && unanswered.has(error);
}

/** Whether an error only says that a message was not sent, since others fail or the relay is to stop. */
export function isUnsent(error: Error): boolean {
  return unsent.has(error);
}

/** Whether it says so of a message that a call of another key, without an answer, held up. */
export function isHeldUp(error: Error): boolean {
  return unsent.get(error)?.isBehind === false && isUnanswered(error.cause);
}

/** An error of a message that was not sent. */
export function notSent(why: string, cause: unknown, isBehind = false): PublishError {
  const error = new PublishError(`not sent: ${why}`, { kind: 'retryable', cause });
  unsent.set(error, { isBehind });
  return error;
}

/**
 * The calls of one publisher that are in flight: how long the oldest has been waited for, and whether one that has no
 * answer is slow by itself, since others are acknowledged meanwhile, or nobody answers.
 */
export class Calls {
  readonly #clock: Clock;
  /** The oldest first. */
  readonly #inFlight = new Set<Call>();
  #acknowledgements = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Milliseconds that the oldest call in flight has been waited for. */
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

  /** The error of a call that had no answer in time. */
  tooLate({ acknowledgements }: Call, timeout: number): PublishError {
    const text = `the publisher did not answer within ${String(timeout)} ms`;
    const error = new PublishError(text, { kind: 'retryable' });
    if (acknowledgements === this.#acknowledgements) unanswered.add(error);
    return error;
  }
}

import { systemClock, type Clock } from '../util/clock.js';

/** How a delay grows with each failure. Milliseconds. */
export interface Backoff {
  readonly minDelay: number;
  readonly maxDelay: number;
}

/**
 * The delay before the next attempt after `failures` failed ones: exponential with full jitter
 * (Brooker, "Exponential Backoff And Jitter", AWS, 2015), never less than half of `minDelay`, so that
 * a run of small random numbers cannot hammer a broker. The default delays are in `relay/policies.ts`.
 */
export function backoff(
  failures: number,
  { minDelay, maxDelay }: Backoff,
  chance: Pick<Clock, 'random'> = systemClock,
): number {
  const ceiling = Math.min(maxDelay, minDelay * 2 ** Math.min(failures - 1, 30));
  const floor = Math.min(minDelay, maxDelay) / 2;
  return floor + chance.random() * (ceiling - floor);
}

/** What becomes of a message that fails. */
export interface RetryPolicy extends Backoff {
  /** Attempts before it is given up, the first included; may be `Infinity`. */
  readonly maxAttempts: number;
  /** What becomes of it then, and of its key. */
  readonly onExhausted: 'dead-letter' | 'block-key';
}

/** `RetryPolicy`, and how many messages may wait. */
export interface TopicPolicy extends RetryPolicy {
  /** May be `Infinity`. */
  readonly maxParked: number;
}

/** The policy of a topic; `undefined` is that of messages without one. */
export type PolicyOf = (topic: string | undefined) => TopicPolicy;

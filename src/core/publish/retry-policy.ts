import { systemClock, type Clock } from '../util/clock.js';

/** How a delay grows with each failure. Durations are in milliseconds. */
export interface Backoff {
  readonly minDelay: number;
  readonly maxDelay: number;
}

/**
 * Returns the delay before the next attempt, after `failures` failed attempts. The delay is exponential with full
 * jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015), but it is never less than half of `minDelay`. So a
 * series of small random numbers cannot overload a broker. The default delays are in `relay/policies.ts`.
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

/** How a failed message is retried, and what happens to it after its last attempt. */
export interface RetryPolicy extends Backoff {
  /** The maximum number of attempts, including the first. Can be `Infinity`. */
  readonly maxAttempts: number;
  /** What happens to the message and its key after the last attempt. */
  readonly onExhausted: 'dead-letter' | 'block-key';
}

/** A topic's `RetryPolicy`, and how many of the topic's messages can wait. */
export interface TopicPolicy extends RetryPolicy {
  /** How many messages can wait. Can be `Infinity`. */
  readonly maxParked: number;
}

/** Returns the policy for a topic. `undefined` stands for messages without a topic. */
export type PolicyOf = (topic: string | undefined) => TopicPolicy;

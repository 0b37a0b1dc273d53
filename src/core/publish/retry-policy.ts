import { systemClock, type Clock } from '../util/clock.js';

/** How a delay grows with each failure. Durations are in milliseconds. */
export interface Backoff {
  readonly minDelay: number;
  readonly maxDelay: number;
}

/**
 * Returns the delay before the next attempt, after `failures` failed ones. It is exponential with full jitter (Brooker,
 * "Exponential Backoff And Jitter", AWS, 2015), but never less than half of `minDelay`. So a run of small random
 * numbers cannot overload a broker. The default delays are in `relay/policies.ts`.
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

/** How a message that fails is tried again, and what happens to it in the end. */
export interface RetryPolicy extends Backoff {
  /** How many attempts are made before the message is given up, including the first. It can be `Infinity`. */
  readonly maxAttempts: number;
  /** What then happens to the message and its key. */
  readonly onExhausted: 'dead-letter' | 'block-key';
}

/** A `RetryPolicy`, and how many messages of a topic can wait. */
export interface TopicPolicy extends RetryPolicy {
  /** How many messages can wait. It can be `Infinity`. */
  readonly maxParked: number;
}

/** The policy of a topic. `undefined` stands for messages without a topic. */
export type PolicyOf = (topic: string | undefined) => TopicPolicy;

import { MessengerError } from '../errors.js';
import { describe } from '../util/describe.js';
import { checkKeys, DAY, limitOption, numberOption, type KeysOf } from '../util/options.js';
import type { MessengerOptions, RetryOptions, TopicOptions } from './options.js';
import type { PolicyOf, TopicPolicy } from '../publish/retry-policy.js';

/** Returns a function that returns the policy for a topic. */
export function policies(options: MessengerOptions): PolicyOf {
  const { retry = {}, maxParked, topics = {} } = options;
  const common = policyOf('', retry, maxParked);
  if (typeof topics !== 'object' || (topics as unknown) === null) {
    throw new MessengerError('INVALID_OPTION', `topics must be an object of options by topic, got ${describe(topics)}`);
  }
  const special = new Map(
    Object.entries(topics).map(([topic, own]): [string | undefined, TopicPolicy] => {
      const at = `topics[${JSON.stringify(topic)}]`;
      checkKeys(own, { retry: true, maxParked: true } satisfies KeysOf<TopicOptions>, at);
      checkKeys(own.retry ?? {}, RETRY_KEYS, `${at}.retry`);
      return [topic, policyOf(`${at}.`, { ...retry, ...own.retry }, own.maxParked ?? maxParked)];
    }),
  );
  return (topic) => special.get(topic) ?? common;
}

const RETRY_KEYS = {
  minDelay: true,
  maxDelay: true,
  maxAttempts: true,
  onExhausted: true,
} satisfies KeysOf<RetryOptions>;

/**
 * Checks these options, and returns the resulting policy. In error messages, `prefix` comes before the names of the
 * options.
 * @throws MessengerError `INVALID_OPTION`.
 */
export function policyOf(prefix: string, retry: RetryOptions, maxParked: number | undefined): TopicPolicy {
  checkKeys(retry, RETRY_KEYS, `${prefix}retry`);
  const { onExhausted = 'dead-letter' } = retry;
  if (!['dead-letter', 'block-key'].includes(onExhausted)) {
    throw new MessengerError(
      'INVALID_OPTION',
      `${prefix}retry.onExhausted must be "dead-letter" or "block-key", got ${describe(onExhausted)}`,
    );
  }
  const minDelay = numberOption(`${prefix}retry.minDelay`, retry.minDelay, 500, { min: 1, max: DAY });
  return {
    minDelay,
    maxDelay: numberOption(`${prefix}retry.maxDelay`, retry.maxDelay, Math.max(minDelay, 300_000), {
      min: minDelay,
      max: DAY,
    }),
    maxAttempts: limitOption(`${prefix}retry.maxAttempts`, retry.maxAttempts, 20),
    onExhausted,
    maxParked: limitOption(`${prefix}maxParked`, maxParked, 10_000),
  };
}

import { MessengerError, toError } from '../../core/errors.js';
import { typedSubscription, type Inbox, type TopicSubscription } from '../../core/outbox/subscribe.js';
import { safeLogger, type ErrorLogger } from '../../core/contracts/logger.js';
import type { Subscriber, Subscription } from '../../core/contracts/subscriber.js';
import type { Schemas, Topics } from '../../core/outbox/topics.js';
import type { MessageHandler } from './discovery.js';

/** A subscriber whose messages go to the methods that `OnMessage` decorates. */
export interface NestSubscriber extends Pick<TopicSubscription<Schemas, unknown>, 'name' | 'unhandledTopics'> {
  readonly subscriber: Subscriber;
  /** @default none: a handler may be called more than once for a message */
  readonly inbox?: Inbox<unknown>;
}

/** A subscriber, and the subscription that it serves. */
interface Consumer {
  readonly subscriber: Subscriber;
  readonly subscription: Subscription;
}

/**
 * Assigns each subscriber its handlers.
 *
 * @throws MessengerError `INVALID_OPTION` if it is unclear which method handles which message.
 */
export function consumersOf(
  topics: Topics,
  subscribers: readonly NestSubscriber[],
  handlers: readonly MessageHandler[],
): Consumer[] {
  const names = subscribers.map(({ name }) => name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) {
    throw new MessengerError('INVALID_OPTION', `two subscribers have the name ${twice}: each needs a different name`);
  }
  for (const { label, subscriber } of handlers) {
    if (names.length === 0) {
      const remedy = 'give the module subscribers, or remove its discovery option if it receives nothing';
      throw new MessengerError(
        'INVALID_OPTION',
        `${label} handles messages, but the module has no subscribers: ${remedy}`,
      );
    }
    if (subscriber === undefined ? names.length === 1 : names.includes(subscriber)) continue;
    throw new MessengerError('INVALID_OPTION', `${label} must name one of the subscribers ${names.join(', ')}`);
  }
  return subscribers.map(({ subscriber, ...rest }) => {
    const own = new Map<string, MessageHandler>();
    for (const handler of handlers.filter((each) => (each.subscriber ?? rest.name) === rest.name)) {
      const other = own.get(handler.topic);
      // Both methods would share one acknowledgement. If one of them failed, the message would be delivered to the
      // other one again too.
      if (other) {
        const both = `${other.label} and ${handler.label}`;
        throw new MessengerError(
          'INVALID_OPTION',
          `${both} both handle ${handler.topic} from ${rest.name}: only one method may handle each topic of a subscriber`,
        );
      }
      own.set(handler.topic, handler);
    }
    if (own.size === 0)
      throw new MessengerError('INVALID_OPTION', `no OnMessage method handles messages from ${rest.name}`);
    const byTopic = Object.fromEntries([...own].map(([topic, { handle }]) => [topic, handle]));
    return { subscriber, subscription: typedSubscription<Schemas, unknown>({ ...rest, topics, handlers: byTopic }) };
  });
}

/**
 * Receives until the signal has aborted and the handlers have ended. If the subscriber fails or ends before that, an
 * error is recorded and logged.
 */
export async function consume(
  { subscriber, subscription }: Consumer,
  { signal, failures, logger }: { signal: AbortSignal; failures: Map<string, Error>; logger: ErrorLogger },
): Promise<void> {
  let failure: Error | undefined;
  try {
    await subscriber.subscribe(subscription, { signal });
    if (!signal.aborted)
      failure = new MessengerError('FATAL', `the subscriber of ${subscription.name} ended before it was stopped`);
  } catch (error) {
    failure = toError(error);
  }
  if (failure === undefined) return;
  failures.set(subscription.name, failure);
  safeLogger(logger).error(failure);
}

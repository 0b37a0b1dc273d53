import { MessengerError } from '../errors.js';
import type { Message } from '../contracts/message.js';
import { describe } from '../util/describe.js';
import { checkKeys, hasMethods, type KeysOf } from '../util/options.js';
import type { HandlerContext, Subscriber, Subscription } from '../contracts/subscriber.js';
import { defineTopics, payloadOf, type ParsedOf, type Schemas, type Topics } from './topics.js';

/**
 * Makes the effect of a message happen once, even if the message is delivered several times. `createInbox` from
 * `messenger-outbox/inbox` creates an inbox.
 */
export interface Inbox<Tx> {
  /**
   * Runs `work` in a transaction, which also records that the message was handled. If the message has already been
   * handled, does not run `work`.
   *
   * @returns whether `work` ran.
   */
  once(message: Message, work: (transaction: Tx) => Promise<unknown>): Promise<boolean>;
}

/** The context that a topic's handler receives in addition to the payload. */
export interface TopicContext<Tx> extends HandlerContext {
  readonly message: Message;
  /**
   * The inbox's transaction. Changes that the handler makes in it take effect only once. `undefined` without an inbox.
   */
  readonly tx: Tx;
}

/** A subscription's handlers, keyed by topic. You can leave out topics. */
export type TopicHandlers<S extends Schemas, Tx> = {
  readonly [Name in keyof S]?: (payload: ParsedOf<S, Name>, context: TopicContext<Tx>) => unknown;
};

/** A subscription to typed topics, with the handlers for their messages. */
export interface TopicSubscription<S extends Schemas, Tx = undefined> {
  /** The name of the subscription, for logs and errors. */
  readonly name: string;
  /** The topics, from `defineTopics` or from an outbox. */
  readonly topics: Topics<S>;
  readonly handlers: TopicHandlers<S, Tx>;
  /** @default no inbox: a handler can be called more than once for a message */
  readonly inbox?: Inbox<Tx>;
  /**
   * How to treat messages whose topic has no handler. With `refuse`, handling them fails, and the broker treats them
   * like other failed messages. With `ignore`, they are acknowledged and dropped.
   * @default 'refuse'
   */
  readonly unhandledTopics?: 'refuse' | 'ignore';
}

/**
 * Receives messages with typed topics until the signal aborts. If a message's payload has an older version, the topic's
 * `upcast` first converts it. The topic's schema then parses the payload, and the topic's handler receives the result.
 *
 * @throws MessengerError `INVALID_OPTION` that names what is wrong. Also throws the subscriber's own errors.
 */
export async function subscribe<S extends Schemas, Tx = undefined>(
  subscriber: Subscriber,
  { signal, ...subscription }: TopicSubscription<S, Tx> & { readonly signal: AbortSignal },
): Promise<void> {
  await subscriber.subscribe(typedSubscription(subscription), { signal });
}

const KEYS = {
  name: true,
  topics: true,
  handlers: true,
  inbox: true,
  unhandledTopics: true,
} satisfies KeysOf<TopicSubscription<Schemas>>;

/**
 * Turns a subscription to typed topics into a plain subscription, for code that accepts only plain ones.
 *
 * @throws MessengerError `INVALID_OPTION` that names what is wrong.
 */
export function typedSubscription<S extends Schemas, Tx = undefined>(options: TopicSubscription<S, Tx>): Subscription {
  checkKeys(options, KEYS);
  const { name, handlers, inbox, unhandledTopics = 'refuse' } = options;
  const topics: Topics = defineTopics<S>(options.topics);
  if (typeof handlers !== 'object' || (handlers as unknown) === null) {
    throw new MessengerError(
      'INVALID_OPTION',
      `handlers must be an object of functions by topic, got ${describe(handlers)}`,
    );
  }
  if (!['refuse', 'ignore'].includes(unhandledTopics)) {
    throw new MessengerError(
      'INVALID_OPTION',
      `unhandledTopics must be 'refuse' or 'ignore', got ${describe(unhandledTopics)}`,
    );
  }
  if (inbox !== undefined && !hasMethods(inbox, 'once')) {
    throw new MessengerError('INVALID_OPTION', `inbox must have the method once, got ${describe(inbox)}`);
  }
  for (const [topic, handler] of Object.entries(handlers) as [string, unknown][]) {
    if (handler === undefined || typeof handler === 'function') continue;
    throw new MessengerError(
      'INVALID_OPTION',
      `handlers[${JSON.stringify(topic)}] must be a function, got ${describe(handler)}`,
    );
  }
  const strangers = Object.keys(handlers).filter((topic) => !Object.hasOwn(topics, topic));
  if (strangers.length > 0) {
    throw new MessengerError(
      'INVALID_OPTION',
      `handlers: there is no topic ${strangers.map((topic) => JSON.stringify(topic)).join(', ')}`,
    );
  }
  return {
    name,
    async handler(message, context) {
      const topic = message.topic ?? '';
      const handle = Object.hasOwn(handlers, topic) ? handlers[topic] : undefined;
      if (handle === undefined) {
        if (unhandledTopics === 'ignore') return;
        throw new MessengerError(
          'INVALID_MESSAGE',
          `${name} has no handler for topic ${JSON.stringify(message.topic)} of message ${message.id}`,
        );
      }
      const payload = (await payloadOf(topics, message)) as never;
      if (inbox) await inbox.once(message, async (tx) => handle(payload, { ...context, message, tx }));
      else await handle(payload, { ...context, message, tx: undefined as Tx });
    },
  };
}

/**
 * The transactional outbox, for applications: topics and messages, the relay, and typed handlers. Stores, brokers,
 * bridges and frameworks are subpaths of their own; what authors of those need is in `messenger-outbox/adapter`.
 *
 * @module
 */
export { defineOutbox } from './core/outbox/outbox.js';
export type { Outbox, OutboxOptions, WritableStore } from './core/outbox/outbox.js';
export { defineTopics } from './core/outbox/topics.js';
export type { ParsedOf, PayloadOf, Schemas, SendOptions, Topic, Topics } from './core/outbox/topics.js';
export { subscribe, typedSubscription } from './core/outbox/subscribe.js';
export type { Inbox, TopicContext, TopicHandlers, TopicSubscription } from './core/outbox/subscribe.js';
export type { MessageInput, Transform } from './core/outbox/transform.js';
export type {
  SchemaInput,
  SchemaIssue,
  SchemaOutput,
  SchemaResult,
  StandardSchema,
} from './core/outbox/standard-schema.js';

export { GenericMessage, newMessage } from './core/contracts/message.js';
export type { Message, NewMessageOptions } from './core/contracts/message.js';
export { Messenger } from './core/relay/messenger.js';
export type { MessengerCallOptions, StartOptions } from './core/relay/messenger.js';
export type { DatastoreStatus } from './core/relay/status.js';
export type { MessengerOptions, RetryOptions, TopicOptions } from './core/relay/options.js';
export type { OutboxRelayOptions, Relay } from './core/relay/handle.js';
export type { DrainOptions } from './core/relay/drain.js';
export type { CircuitStatus } from './core/publish/circuit-breaker.js';

export { EmptyMessagePayloadError, FatalError, MessengerError, PublishError } from './core/errors.js';
export type { ErrorCode, FailureKind } from './core/errors.js';
export { CleaningError } from './core/contracts/store.js';
export { consoleErrorLogger } from './core/contracts/logger.js';
export type { ErrorLogger } from './core/contracts/logger.js';
export type { MessengerEvent } from './core/contracts/events.js';

export type { StoreCallOptions } from './core/contracts/call-options.js';
export type { CleanReport, KeptReason, Store } from './core/contracts/store.js';
export type { Publisher, PublishFunction, PublishOptions } from './core/contracts/publisher.js';
export type {
  Handler,
  HandlerContext,
  Subscriber,
  SubscriberOptions,
  Subscription,
} from './core/contracts/subscriber.js';

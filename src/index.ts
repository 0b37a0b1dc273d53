/**
 * The transactional outbox: messages, contracts and the relay. Stores, publishers and subscribers
 * are subpaths of their own.
 *
 * @module
 */
export type { TransactionBridge } from './core/contracts/bridge.js';
export { EmptyMessagePayloadError, FatalError, MessengerError, PublishError } from './core/errors.js';
export type { ErrorCode, FailureKind } from './core/errors.js';
export { NETWORK_FAILURES, classify, failureKind } from './core/publish/failure-kinds.js';
export type { FailureTable } from './core/publish/failure-kinds.js';
export type { MessengerEvent } from './core/contracts/events.js';
export type { CircuitStatus } from './core/publish/circuit-breaker.js';
export { subscribe, typed } from './core/outbox/subscribe.js';
export type { Inbox, TopicContext, TopicHandlers, TopicSubscription } from './core/outbox/subscribe.js';
export type { InboxStore } from './core/contracts/inbox.js';
export { consoleErrorLogger } from './core/contracts/logger.js';
export type { ErrorLogger } from './core/contracts/logger.js';
export { GenericMessage, newMessage } from './core/contracts/message.js';
export type { Message, NewMessageOptions } from './core/contracts/message.js';
export { Messenger } from './core/relay/messenger.js';
export type { DatastoreStatus, MessengerCallOptions, StartOptions } from './core/relay/messenger.js';
export type { MessengerOptions, RetryOptions, TopicOptions } from './core/relay/options.js';
export type { DrainOptions } from './core/relay/drain.js';
export { defineOutbox } from './core/outbox/outbox.js';
export type { Outbox, OutboxOptions, SendOptions, WritableStore } from './core/outbox/outbox.js';
export type { OutboxRelayOptions, Relay } from './core/relay/handle.js';
export type {
  SchemaInput,
  SchemaIssue,
  SchemaOutput,
  SchemaResult,
  StandardSchema,
} from './core/outbox/standard-schema.js';
export { defineTopics } from './core/outbox/topics.js';
export type { ParsedOf, PayloadOf, Schemas, Topic, Topics } from './core/outbox/topics.js';
export { ACKNOWLEDGED, isBatchPublisher } from './core/contracts/publisher.js';
export type {
  BatchPublisher,
  Publisher,
  PublishFunction,
  PublishOptions,
  PublishResult,
} from './core/contracts/publisher.js';
export { CleaningError, isCleaningError, isCleanReport, isFeedStore } from './core/contracts/store.js';
export type { StoreCallOptions } from './core/contracts/call-options.js';
export type { CleanReport, FeedStore, KeptReason, Store } from './core/contracts/store.js';
export type { Feed, FeedOptions, Page, SetAside } from './core/contracts/feed.js';
export type {
  Handler,
  HandlerContext,
  Subscriber,
  SubscriberOptions,
  Subscription,
} from './core/contracts/subscriber.js';
export { defaultTransform } from './core/outbox/transform.js';
export type { MessageInput, Transform } from './core/outbox/transform.js';
export { uuidv7 } from './core/util/uuid.js';

/**
 * The transactional outbox: messages, contracts and the relay. Stores, publishers and subscribers
 * are subpaths of their own.
 *
 * @module
 */
export type { TransactionBridge } from './core/bridge.js';
export { EmptyMessagePayloadError, FatalError, MessengerError, PublishError } from './core/errors.js';
export type { ErrorCode, FailureKind } from './core/errors.js';
export { NETWORK_FAILURES, classify, failureKind } from './core/failures.js';
export type { FailureTable } from './core/failures.js';
export type { MessengerEvent } from './core/events.js';
export type { CircuitStatus } from './core/circuit.js';
export { subscribe, typed } from './core/handlers.js';
export type { Inbox, TopicContext, TopicHandlers, TopicSubscription } from './core/handlers.js';
export type { InboxStore } from './core/inbox.js';
export { consoleErrorLogger } from './core/logger.js';
export type { ErrorLogger } from './core/logger.js';
export { GenericMessage, newMessage } from './core/message.js';
export type { Message, NewMessageOptions } from './core/message.js';
export { Messenger } from './core/messenger.js';
export type { DatastoreStatus, MessengerCallOptions, StartOptions } from './core/messenger.js';
export type { MessengerOptions, RetryOptions, TopicOptions } from './core/messenger-options.js';
export type { DrainOptions } from './core/drain.js';
export { defineOutbox } from './core/outbox.js';
export type { Outbox, OutboxOptions, SendOptions, WritableStore } from './core/outbox.js';
export type { OutboxRelayOptions, Relay } from './core/running-relay.js';
export type { SchemaInput, SchemaIssue, SchemaOutput, SchemaResult, StandardSchema } from './core/standard-schema.js';
export { defineTopics } from './core/topics.js';
export type { ParsedOf, PayloadOf, Schemas, Topic, Topics } from './core/topics.js';
export { ACKNOWLEDGED, isBatchPublisher } from './core/publisher.js';
export type { BatchPublisher, Publisher, PublishFunction, PublishOptions, PublishResult } from './core/publisher.js';
export { CleaningError, isCleaningError, isCleanReport, isFeedStore } from './core/store.js';
export type { StoreCallOptions } from './core/call.js';
export type { CleanReport, FeedStore, KeptReason, Store } from './core/store.js';
export type { Feed, FeedOptions, Page, SetAside } from './core/feed.js';
export type { Handler, HandlerContext, Subscriber, SubscriberOptions, Subscription } from './core/subscriber.js';
export { defaultTransform } from './core/transform.js';
export type { MessageInput, Transform } from './core/transform.js';
export { uuidv7 } from './core/uuid.js';

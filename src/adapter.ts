/**
 * For authors of stores, brokers and bridges: the contracts, and what keeps them. The suites that prove an adapter are in
 * `messenger-outbox/testing/conformance`.
 *
 * @module
 */
export { ACKNOWLEDGED, isBatchPublisher } from './core/contracts/publisher.js';
export type {
  BatchPublisher,
  Publisher,
  PublishFunction,
  PublishOptions,
  PublishResult,
} from './core/contracts/publisher.js';
export { NETWORK_FAILURES, classify, failureKind } from './core/publish/failure-kinds.js';
export type { FailureTable } from './core/publish/failure-kinds.js';
export { MessengerError, PublishError } from './core/errors.js';
export type { ErrorCode, FailureKind } from './core/errors.js';

export type {
  Handler,
  HandlerContext,
  Subscriber,
  SubscriberOptions,
  Subscription,
} from './core/contracts/subscriber.js';

export { CleaningError, isCleaningError, isCleanReport, isFeedStore } from './core/contracts/store.js';
export type { CleanReport, FeedStore, KeptReason, Store } from './core/contracts/store.js';
export type { CloseOptions, Feed, FeedOptions, IdleOptions, Page, ToPark } from './core/contracts/feed.js';
export type {
  AddDestinationOptions,
  DeadLetter,
  DeadLetterFilter,
  DeadLetterSelection,
  DeadLettersOptions,
  DestinationState,
  OutboxAdmin,
  ParkedMessage,
  ParkedOptions,
  ParkedState,
  RemovedDestination,
  RemoveDestinationOptions,
  UpdateDestinationOptions,
} from './core/contracts/admin.js';
export type { InboxStore } from './core/contracts/inbox.js';
export type { StoreCallOptions } from './core/contracts/call-options.js';
export type { Message } from './core/contracts/message.js';
export { defaultTransform } from './core/outbox/transform.js';
export type { MessageInput, Transform } from './core/outbox/transform.js';
export { uuidv7 } from './core/util/uuid.js';

export type { TransactionBridge } from './core/contracts/bridge.js';

/**
 * Amazon SQS: a publisher and a subscriber.
 *
 * @module
 */
export { SqsPublisher } from './sqs/publisher.js';
export type { SqsPublisherClient, SqsPublisherOptions } from './sqs/publisher.js';
export { SqsSubscriber } from './sqs/subscriber.js';
export type { SqsSubscriberClient, SqsSubscriberOptions } from './sqs/subscriber.js';

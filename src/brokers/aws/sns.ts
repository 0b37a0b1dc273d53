/**
 * Publishes to an SNS topic, standard or FIFO.
 *
 * @module
 */
import { PublishBatchCommand, type PublishBatchCommandOutput } from '@aws-sdk/client-sns';
import type { Message } from '../../core/contracts/message.js';
import type { BatchPublisher, PublishOptions, PublishResult } from '../../core/contracts/publisher.js';
import { sendBatches, sendOne, type SendBatch } from './wire/batches.js';
import { checkClient, matchingText } from './wire/options.js';
import { isFifo } from './wire/queue.js';
import {
  checkPublisherOptions,
  publisherSettings,
  type AwsPublisherOptions,
  type PublisherSettings,
} from './wire/settings.js';

/** The part of the SDK's `SNSClient` that `SnsPublisher` uses. */
export interface SnsPublisherClient {
  send(command: PublishBatchCommand, options?: { abortSignal?: AbortSignal }): Promise<PublishBatchCommandOutput>;
}

/** The options of `SnsPublisher`. */
export interface SnsPublisherOptions extends AwsPublisherOptions {
  /** The ARN of the topic. */
  topic: string;
}

const TOPIC_ARN = /^arn:[^:]+:sns:[^:]+:\d+:[A-Za-z0-9_-]{1,256}(\.fifo)?$/;

/**
 * Sends messages to an SNS topic in batches, and reads the result of every entry.
 *
 * If the payload is text that AWS transmits unchanged, the body is the payload itself. Otherwise, the body is the
 * payload in base64. Attributes carry the id (`messageIdKey`), `topic`, `key`, and as many metadata entries as fit into
 * the 10 attributes of a raw delivery to SQS. The `messenger` attribute is the envelope: a JSON object with everything
 * that the other attributes cannot carry. `SqsSubscriber` puts the message together again.
 *
 * On a FIFO topic, the message group is the message's `key`, or else the metadata entry that `groupIdKey` names, or
 * else `defaultGroupId`. The de-duplication id is the message id. If AWS does not accept one of these strings as an id
 * (a space, an umlaut, more than 128 characters), the id is `sha256:` and the hash of the string. Messages in the same
 * group (on a standard topic, with the same key) are sent one after the other.
 *
 * @example
 * ```ts
 * const publisher = new SnsPublisher(new SNSClient({}), { topic: 'arn:aws:sns:eu-west-1:111122223333:orders' });
 * ```
 */
export class SnsPublisher implements BatchPublisher {
  readonly batchKeepsKeyOrder = true;
  readonly #settings: PublisherSettings;
  readonly #send: SendBatch;

  /** @throws MessengerError `INVALID_OPTION`. The error quotes the invalid value. */
  constructor(client: SnsPublisherClient, options: SnsPublisherOptions) {
    checkClient(client, 'an SNSClient');
    checkPublisherOptions<SnsPublisherOptions>(options, { topic: true });
    const topic = matchingText('topic', options.topic, TOPIC_ARN, 'the ARN of an SNS topic');
    this.#settings = publisherSettings(options, isFifo(topic), 262_144);
    this.#send = (entries, signal) =>
      client.send(
        new PublishBatchCommand({
          TopicArn: topic,
          PublishBatchRequestEntries: entries.map(({ Id, body, MessageAttributes, fifo }) => ({
            Id,
            Message: body,
            MessageAttributes,
            ...fifo,
          })),
        }),
        signal === undefined ? {} : { abortSignal: signal },
      );
  }

  /** @throws PublishError if SNS did not acknowledge the message. */
  publish(message: Message, options?: PublishOptions): Promise<void> {
    return sendOne(message, this.#settings, this.#send, options);
  }

  publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]> {
    return sendBatches(messages, this.#settings, this.#send, options);
  }
}

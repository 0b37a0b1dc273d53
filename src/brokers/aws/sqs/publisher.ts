/**
 * Publishes to an SQS queue, standard or FIFO.
 *
 * @module
 */
import {
  GetQueueUrlCommand,
  SendMessageBatchCommand,
  type GetQueueUrlCommandOutput,
  type SendMessageBatchCommandOutput,
} from '@aws-sdk/client-sqs';
import type { Message } from '../../../core/contracts/message.js';
import type { BatchPublisher, PublishOptions, PublishResult } from '../../../core/contracts/publisher.js';
import { sendBatches, sendOne, type SendBatch } from '../wire/batches.js';
import { checkClient } from '../wire/options.js';
import { resolveQueue } from '../wire/queue.js';
import {
  checkPublisherOptions,
  publisherSettings,
  type AwsPublisherOptions,
  type PublisherSettings,
} from '../wire/settings.js';

/** The part of the SDK's `SQSClient` that `SqsPublisher` uses. */
export interface SqsPublisherClient {
  send(
    command: SendMessageBatchCommand,
    options?: { abortSignal?: AbortSignal },
  ): Promise<SendMessageBatchCommandOutput>;
  send(command: GetQueueUrlCommand, options?: { abortSignal?: AbortSignal }): Promise<GetQueueUrlCommandOutput>;
}

/** The options of `SqsPublisher`. */
export interface SqsPublisherOptions extends AwsPublisherOptions {
  /**
   * The name, URL or ARN of the queue. A name or an ARN is looked up when the first message is sent, which needs the
   * `sqs:GetQueueUrl` permission.
   */
  queue: string;
}

/**
 * Sends messages to an SQS queue in batches, and reads the result of every entry.
 *
 * If the payload is text that AWS transmits unchanged, the body is the payload itself. Otherwise, the body is the
 * payload in base64. Attributes carry the id (`messageIdKey`), `topic`, `key`, and as many metadata entries as fit into
 * the 10 attributes of SQS. The `messenger` attribute is the envelope: a JSON object with everything that the other
 * attributes cannot carry. `SqsSubscriber` puts the message together again.
 *
 * On a FIFO queue, the message group is the message's `key`, or else the metadata entry that `groupIdKey` names, or
 * else `defaultGroupId`. The de-duplication id is the message id. If AWS does not accept one of these strings as an id
 * (a space, an umlaut, more than 128 characters), the id is `sha256:` and the hash of the string. Messages in the same
 * group (on a standard queue, with the same key) are sent one after the other.
 *
 * @example
 * ```ts
 * const publisher = new SqsPublisher(new SQSClient({}), { queue: 'orders.fifo', defaultGroupId: 'orders' });
 * ```
 */
export class SqsPublisher implements BatchPublisher {
  readonly batchKeepsKeyOrder = true;
  readonly #settings: PublisherSettings;
  readonly #send: SendBatch;

  /** @throws MessengerError `INVALID_OPTION`. The error quotes the invalid value. */
  constructor(client: SqsPublisherClient, options: SqsPublisherOptions) {
    checkClient(client, 'an SQSClient');
    checkPublisherOptions<SqsPublisherOptions>(options, { queue: true });
    const queue = resolveQueue(options.queue, async (lookup, signal) => {
      const { QueueUrl } = await client.send(new GetQueueUrlCommand(lookup), abortable(signal));
      return QueueUrl;
    });
    this.#settings = publisherSettings(options, queue.fifo, 1_048_576);
    this.#send = async (entries, signal) => {
      const command = new SendMessageBatchCommand({
        QueueUrl: await queue.url(signal),
        Entries: entries.map(({ Id, body, MessageAttributes, fifo }) => ({
          Id,
          MessageBody: body,
          MessageAttributes,
          ...fifo,
        })),
      });
      return client.send(command, abortable(signal));
    };
  }

  /** @throws PublishError if SQS did not acknowledge the message. */
  publish(message: Message, options?: PublishOptions): Promise<void> {
    return sendOne(message, this.#settings, this.#send, options);
  }

  publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]> {
    return sendBatches(messages, this.#settings, this.#send, options);
  }
}

function abortable(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

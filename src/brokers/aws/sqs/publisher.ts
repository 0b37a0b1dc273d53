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
   * The queue by name, URL or ARN. A name or an ARN is looked up with the first message, which needs the permission
   * `sqs:GetQueueUrl`.
   */
  queue: string;
}

/**
 * Sends messages to an SQS queue in batches, and reads the answer to every entry.
 *
 * The body is the payload if that is text that AWS carries unchanged, and its base64 otherwise. Attributes carry the id
 * (`messageIdKey`), `topic`, `key`, and as many metadata entries as fit into the 10 attributes of SQS. The attribute
 * `messenger` is the envelope: a JSON object with everything that attributes cannot carry. `SqsSubscriber` puts the
 * message together again.
 *
 * On a FIFO queue the group is the message's `key`, or else the metadata entry `groupIdKey`, or else `defaultGroupId`.
 * The de-duplication id is the message id. If AWS does not accept a text as such an id (a space, an umlaut, more than
 * 128 characters), the id is `sha256:` and the hash of the text. Messages of one group (on a standard queue, of one
 * key) are sent one after the other.
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

  /** @throws MessengerError `INVALID_OPTION` that quotes what is wrong. */
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

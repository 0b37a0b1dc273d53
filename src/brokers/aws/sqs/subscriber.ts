/**
 * Receives messages from an SQS queue, standard or FIFO. The messages were sent to the queue itself, or to SNS topics
 * that the queue subscribes to.
 *
 * @module
 */
import {
  ChangeMessageVisibilityBatchCommand,
  DeleteMessageBatchCommand,
  GetQueueUrlCommand,
  ReceiveMessageCommand,
  type ChangeMessageVisibilityBatchCommandOutput,
  type DeleteMessageBatchCommandOutput,
  type GetQueueUrlCommandOutput,
  type ReceiveMessageCommandOutput,
} from '@aws-sdk/client-sqs';
import { MessengerError } from '../../../core/errors.js';
import { consoleErrorLogger, safeLogger } from '../../../core/contracts/logger.js';
import { checkKeys, numberOption, type KeysOf } from '../../../core/util/options.js';
import type { Subscriber, SubscriberOptions, Subscription } from '../../../core/contracts/subscriber.js';
import { withDeadline } from '../../../core/util/async.js';
import { checkMessageIdKey, MESSAGE_ID_KEY } from '../wire/attributes.js';
import { checkClient } from '../wire/options.js';
import { resolveQueue, type Queue } from '../wire/queue.js';
import { readReply } from '../wire/reply.js';
import type { ReceiptCalls } from '../wire/receipts.js';
import { receiveAndHandle, type SessionSettings } from '../wire/session.js';

interface SendOptions {
  abortSignal?: AbortSignal;
}

/** The part of the SDK's `SQSClient` that `SqsSubscriber` uses. */
export interface SqsSubscriberClient {
  send(command: ReceiveMessageCommand, options?: SendOptions): Promise<ReceiveMessageCommandOutput>;
  send(command: DeleteMessageBatchCommand, options?: SendOptions): Promise<DeleteMessageBatchCommandOutput>;
  send(
    command: ChangeMessageVisibilityBatchCommand,
    options?: SendOptions,
  ): Promise<ChangeMessageVisibilityBatchCommandOutput>;
  send(command: GetQueueUrlCommand, options?: SendOptions): Promise<GetQueueUrlCommandOutput>;
}

/** The options of `SqsSubscriber`. */
export interface SqsSubscriberOptions extends SubscriberOptions {
  /** The name, URL or ARN of the queue. A name or an ARN needs the `sqs:GetQueueUrl` permission. */
  queue: string;
  /**
   * How many messages the subscriber holds at once. These are the messages whose handlers are running and, on a FIFO
   * queue, the messages that are waiting in their group. @default 10
   */
  concurrency?: number;
  /** How many seconds one receive waits for a message, 0 to 20. @default 20 */
  waitTimeSeconds?: number;
  /**
   * How many seconds a received message is hidden from other consumers, 2 to 43,200. Whenever half of this time has
   * passed, the subscriber restarts it for the messages that it holds. So a handler may take longer, up to SQS's limit
   * of 12 hours.
   * @default 30
   */
  visibilityTimeoutSeconds?: number;
  /**
   * Milliseconds until a message whose handler failed is delivered again, rounded up to whole seconds.
   * @default when its visibility timeout ends
   */
  retryDelay?: number;
  /**
   * How many milliseconds a stop waits for handlers before it aborts their signal. No more than two seconds later, the
   * subscriber has stopped, and messages whose handlers are still running are delivered again.
   * @default 8_000
   */
  stopTimeout?: number;
  /** The attribute that carries the message id. Use the same attribute in the publisher. @default 'message-id' */
  messageIdKey?: string;
}

/**
 * How many milliseconds a request may take, in addition to the time that a receive waits for messages. A dead
 * connection must not hold up a stop.
 */
const REQUEST_TIMEOUT = 10_000;

/**
 * Hands messages from an SQS queue to a handler, and deletes each message after its handler has succeeded.
 *
 * - If a handler fails, the error is logged and the message is delivered again (`retryDelay`). Give the queue a redrive
 *   policy, because only SQS decides after how many receives a message becomes a dead letter.
 * - On a FIFO queue, the messages in a group are handled one at a time and in order. If one fails, the messages in its
 *   group that the subscriber holds go back to the queue. SQS counts that as a receive for each of them.
 * - A stop releases the messages that were received but not started, and waits for running handlers.
 * - Errors from SQS are logged, and the subscriber never stops trying to receive, with a backoff of 0.1 to 30 seconds.
 *
 * The handler gets the payload, id, metadata, topic, key and time of the message that `SqsPublisher` or `SnsPublisher`
 * sent, with or without raw delivery. A message from another sender has the broker's message id as its id, its
 * attributes as metadata, and its message group as its key.
 *
 * @example
 * ```ts
 * const subscriber = new SqsSubscriber(new SQSClient({}), { queue: 'orders' });
 * await subscriber.subscribe({ name: 'orders', handler: (message) => handle(message) }, { signal });
 * ```
 */
export class SqsSubscriber implements Subscriber {
  readonly #client: SqsSubscriberClient;
  readonly #queue: Queue;
  readonly #settings: SessionSettings;
  readonly #waitTimeSeconds: number;

  /** @throws MessengerError `INVALID_OPTION`. The error quotes the invalid value. */
  constructor(client: SqsSubscriberClient, options: SqsSubscriberOptions) {
    checkClient(client, 'an SQSClient');
    checkKeys(options, KEYS);
    this.#client = client;
    this.#queue = resolveQueue(options.queue, async (lookup, signal) => {
      const command = new GetQueueUrlCommand(lookup);
      const { QueueUrl } = await request(REQUEST_TIMEOUT, signal, (send) => client.send(command, send));
      return QueueUrl;
    });
    const whole = (name: string, value: unknown, fallback: number, min: number, max: number): number =>
      numberOption(name, value, fallback, { min, max, integer: true });
    this.#waitTimeSeconds = whole('waitTimeSeconds', options.waitTimeSeconds, 20, 0, 20);
    const retryDelay = whole('retryDelay', options.retryDelay, 0, 0, 43_200_000);
    this.#settings = {
      concurrency: whole('concurrency', options.concurrency, 10, 1, 100_000),
      visibilitySeconds: whole('visibilityTimeoutSeconds', options.visibilityTimeoutSeconds, 30, 2, 43_200),
      retrySeconds: options.retryDelay === undefined ? undefined : Math.ceil(retryDelay / 1_000),
      stopTimeout: whole('stopTimeout', options.stopTimeout, 8_000, 0, 2_147_483_647),
      messageIdKey: checkMessageIdKey(options.messageIdKey ?? MESSAGE_ID_KEY),
      ordered: this.#queue.fifo,
      logger: safeLogger(options.errorLogger ?? consoleErrorLogger),
    };
  }

  /** Resolves when the signal has aborted and the work has ended. Never rejects. */
  subscribe(subscription: Subscription, options: { signal: AbortSignal }): Promise<void> {
    return receiveAndHandle(subscription, options.signal, this.#settings, {
      receive: async (most, signal) => {
        const command = new ReceiveMessageCommand({
          QueueUrl: await this.#queue.url(signal),
          MaxNumberOfMessages: most,
          WaitTimeSeconds: this.#waitTimeSeconds,
          VisibilityTimeout: this.#settings.visibilitySeconds,
          MessageAttributeNames: ['All'],
          MessageSystemAttributeNames: ['MessageGroupId', 'SentTimestamp'],
        });
        const longest = this.#waitTimeSeconds * 1_000 + REQUEST_TIMEOUT;
        const { Messages } = await request(longest, signal, (send) => this.#client.send(command, send));
        return Messages ?? [];
      },
      ...this.#receiptCalls(),
    });
  }

  #receiptCalls(): ReceiptCalls {
    return {
      remove: async (receipts) => {
        const Entries = receipts.map((ReceiptHandle, i) => ({ Id: String(i), ReceiptHandle }));
        const command = new DeleteMessageBatchCommand({ QueueUrl: await this.#queue.url(), Entries });
        const reply = await request(REQUEST_TIMEOUT, undefined, (send) => this.#client.send(command, send));
        return readReply(idsOf(Entries), reply);
      },
      changeVisibility: async (changes) => {
        const Entries = changes.map(({ receipt, seconds }, i) => ({
          Id: String(i),
          ReceiptHandle: receipt,
          VisibilityTimeout: seconds,
        }));
        const command = new ChangeMessageVisibilityBatchCommand({ QueueUrl: await this.#queue.url(), Entries });
        const reply = await request(REQUEST_TIMEOUT, undefined, (send) => this.#client.send(command, send));
        return readReply(idsOf(Entries), reply);
      },
    };
  }
}

const KEYS = {
  errorLogger: true,
  queue: true,
  concurrency: true,
  waitTimeSeconds: true,
  visibilityTimeoutSeconds: true,
  retryDelay: true,
  stopTimeout: true,
  messageIdKey: true,
} satisfies KeysOf<SqsSubscriberOptions>;

function idsOf(entries: readonly { readonly Id: string }[]): readonly string[] {
  return entries.map(({ Id }) => Id);
}

function request<Reply>(
  timeout: number,
  signal: AbortSignal | undefined,
  send: (options: SendOptions) => Promise<Reply>,
): Promise<Reply> {
  const late = (): MessengerError => new MessengerError('TIMEOUT', `SQS did not answer within ${String(timeout)} ms`);
  return withDeadline(timeout, signal, late, (abortSignal) => send({ abortSignal: abortSignal() }));
}

import { MessengerError } from '../../core/errors.js';
import { checkKeys, numberOption } from '../../core/options.js';
import { Room } from '../../core/plain-publisher.js';
import { checkMessageIdKey, MESSAGE_ID_KEY } from './attributes.js';
import { matchingText } from './options.js';

/** What the publishers of SNS and SQS have in common. */
export interface AwsPublisherOptions {
  /**
   * The attribute that carries the message id. Give `SqsSubscriber` the same one.
   * @default 'message-id'
   */
  messageIdKey?: string;
  /** FIFO only: the metadata entry that names the message group of messages without a `key`. @default none */
  groupIdKey?: string;
  /** FIFO only: the message group of messages with neither; without it they fail permanently. @default none */
  defaultGroupId?: string;
  /**
   * Bytes of one request, and so of one message: bodies, and names, types and values of attributes.
   * SQS takes 1,048,576 where the queue's `MaximumMessageSize` allows it; SNS takes 262,144.
   * @default 262_144
   */
  maxBatchBytes?: number;
  /** Requests in flight at once. @default 4 */
  concurrency?: number;
}

/** The options with their defaults, checked. */
export interface PublisherSettings {
  readonly fifo: boolean;
  readonly messageIdKey: string;
  readonly groupIdKey: string | undefined;
  readonly defaultGroupId: string | undefined;
  readonly maxBatchBytes: number;
  /** For its requests in flight. */
  readonly room: Room;
}

/**
 * To be called before an option is read.
 *
 * @throws MessengerError `INVALID_OPTION` for what is no object of options.
 */
export function checkPublisherOptions(options: unknown, destination: 'queue' | 'topic'): void {
  checkKeys(options, [destination, 'messageIdKey', 'groupIdKey', 'defaultGroupId', 'maxBatchBytes', 'concurrency']);
}

/** @throws MessengerError `INVALID_OPTION` quoting what is wrong. */
export function publisherSettings(options: AwsPublisherOptions, fifo: boolean): PublisherSettings {
  const { groupIdKey, defaultGroupId } = options;
  if (!fifo) refuse('groupIdKey', groupIdKey);
  if (!fifo) refuse('defaultGroupId', defaultGroupId);
  if (groupIdKey !== undefined) matchingText('groupIdKey', groupIdKey, /^[^]+$/, 'the name of a metadata entry');
  if (defaultGroupId !== undefined) {
    matchingText('defaultGroupId', defaultGroupId, /^[!-~]{1,128}$/, '1 to 128 ASCII letters, digits or punctuation');
  }
  return {
    fifo,
    messageIdKey: checkMessageIdKey(options.messageIdKey ?? MESSAGE_ID_KEY),
    groupIdKey,
    defaultGroupId,
    maxBatchBytes: numberOption('maxBatchBytes', options.maxBatchBytes, 262_144, {
      min: 1_024,
      max: 1_048_576,
      integer: true,
    }),
    room: new Room(numberOption('concurrency', options.concurrency, 4, { min: 1, max: 1_000, integer: true })),
  };
}

function refuse(name: string, value: unknown): void {
  if (value === undefined) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `${name} is for FIFO destinations, whose names end in ".fifo"; got ${JSON.stringify(value)}`,
  );
}

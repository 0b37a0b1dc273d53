import { MessengerError } from '../../../core/errors.js';
import { checkKeys, numberOption, type KeysOf } from '../../../core/util/options.js';
import { Room } from '../../../core/publish/lanes.js';
import {
  checkAttributeKeys,
  checkMessageIdKey,
  MESSAGE_ID_KEY,
  TOPIC_KEY,
  KEY_KEY,
  type AttributeSettings,
} from './attributes.js';
import type { FifoSettings } from './fifo.js';
import { matchingText } from './options.js';

/** What the publishers of SNS and SQS have in common. */
export interface AwsPublisherOptions {
  /**
   * The attribute that carries the message id. Give `SqsSubscriber` the same one.
   * @default 'message-id'
   */
  messageIdKey?: string;
  /**
   * Metadata entries that become attributes before any others, such as those that filter policies read: at most 6. AWS
   * accepts 10 attributes for a message. Up to 4 of them are its id, its topic, its key and the envelope. The rest of
   * the metadata travels in the envelope, and `SqsSubscriber` restores it.
   * @default none: as many entries as fit, in their order, `content-type` and `schema-version` last
   */
  attributeKeys?: readonly string[];
  /** FIFO only: the metadata entry that names the message group of messages without a `key`. @default none */
  groupIdKey?: string;
  /**
   * FIFO only: the message group of messages with neither a `key` nor that entry. Without it they fail permanently.
   * @default none
   */
  defaultGroupId?: string;
  /**
   * The most bytes of one request, and so of one message: bodies, and the names, types and values of attributes; 1,024
   * to 1,048,576. A payload that is not text travels as base64, which is a third larger. A larger message fails
   * permanently, and is not sent. SQS accepts 1,048,576 bytes per request, and per message as many as the queue's
   * `MaximumMessageSize` allows. SNS accepts 262,144, and up to 1,048,576 if the topic's attribute `MaximumMessageSize`
   * allows it. Set both to the same value.
   * @default 1_048_576 for SQS, 262_144 for SNS
   */
  maxBatchBytes?: number;
  /** How many requests may be in flight at once. @default 4 */
  concurrency?: number;
}

/** The options with their defaults, checked. */
export interface PublisherSettings extends AttributeSettings, FifoSettings {
  readonly fifo: boolean;
  readonly maxBatchBytes: number;
  /** Room for the publisher's requests in flight. */
  readonly room: Room;
}

/**
 * Call this before reading an option.
 *
 * @param own The options that only this publisher has.
 * @throws MessengerError `INVALID_OPTION` for a value that is not an object of options.
 */
export function checkPublisherOptions<Options extends AwsPublisherOptions>(
  options: Options,
  own: KeysOf<Omit<Options, keyof AwsPublisherOptions>>,
): void {
  checkKeys(options, { ...own, ...KEYS });
}

const KEYS = {
  messageIdKey: true,
  attributeKeys: true,
  groupIdKey: true,
  defaultGroupId: true,
  maxBatchBytes: true,
  concurrency: true,
} satisfies KeysOf<AwsPublisherOptions>;

/**
 * @param maxBatchBytes The default of the option.
 * @throws MessengerError `INVALID_OPTION` that quotes what is wrong.
 */
export function publisherSettings(
  options: AwsPublisherOptions,
  fifo: boolean,
  maxBatchBytes: number,
): PublisherSettings {
  const { groupIdKey, defaultGroupId } = options;
  if (!fifo) refuse('groupIdKey', groupIdKey);
  if (!fifo) refuse('defaultGroupId', defaultGroupId);
  if (groupIdKey !== undefined) matchingText('groupIdKey', groupIdKey, /^[^]+$/, 'the name of a metadata entry');
  if (defaultGroupId !== undefined) {
    matchingText('defaultGroupId', defaultGroupId, /^[!-~]{1,128}$/, '1 to 128 ASCII letters, digits or punctuation');
  }
  return {
    fifo,
    messageIdKey: checkMessageIdKey(options.messageIdKey ?? MESSAGE_ID_KEY, [TOPIC_KEY, KEY_KEY]),
    attributeKeys: checkAttributeKeys(options.attributeKeys ?? []),
    groupIdKey,
    defaultGroupId,
    maxBatchBytes: numberOption('maxBatchBytes', options.maxBatchBytes, maxBatchBytes, {
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
    `${name} is only for FIFO destinations, whose names end in ".fifo", got ${JSON.stringify(value)}`,
  );
}

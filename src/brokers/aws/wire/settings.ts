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

/** The options that the SNS and SQS publishers have in common. */
export interface AwsPublisherOptions {
  /**
   * The attribute that carries the message id. Use the same attribute in `SqsSubscriber`.
   * @default 'message-id'
   */
  messageIdKey?: string;
  /**
   * The metadata entries that become attributes before any others, such as the entries that filter policies read. There
   * can be at most 6, because AWS accepts 10 attributes on a message, and up to 4 of them are its id, its topic, its
   * key and the envelope. The rest of the metadata travels in the envelope, and `SqsSubscriber` restores it.
   * @default none: as many entries as fit, in their order, `content-type` and `schema-version` last
   */
  attributeKeys?: readonly string[];
  /** FIFO only: the metadata entry that contains the message group for messages without a `key`. @default none */
  groupIdKey?: string;
  /**
   * FIFO only: the message group for messages with neither a `key` nor that entry. Without this option, such messages
   * fail permanently.
   * @default none
   */
  defaultGroupId?: string;
  /**
   * The largest size of one request, and so of one message, in bytes: 1,024 to 1,048,576. The size includes the bodies,
   * and the names, types and values of the attributes. A payload that is not text travels as base64, which is a third
   * larger. A larger message is not sent, and fails permanently. SQS accepts up to 1,048,576 bytes per request. The
   * limit per message is the queue's `MaximumMessageSize`. SNS accepts 262,144 bytes, or up to 1,048,576 if the topic's
   * `MaximumMessageSize` attribute allows it. Set this option and `MaximumMessageSize` to the same value.
   * @default 1_048_576 for SQS, 262_144 for SNS
   */
  maxBatchBytes?: number;
  /** How many requests may be in flight at once. @default 4 */
  concurrency?: number;
}

/** The checked options, with defaults filled in. */
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
 * @throws MessengerError `INVALID_OPTION` for a value that is not an options object.
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
 * @param maxBatchBytes The default of the `maxBatchBytes` option.
 * @throws MessengerError `INVALID_OPTION`. The error quotes the invalid value.
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

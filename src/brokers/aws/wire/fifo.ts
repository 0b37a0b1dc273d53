import { PublishError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';
import { describe } from '../../../core/util/describe.js';

/** The FIFO parameters of one message. */
export interface FifoParameters {
  readonly MessageGroupId: string;
  readonly MessageDeduplicationId: string;
}

/** The settings that determine a message's group. */
export interface FifoSettings {
  readonly groupIdKey: string | undefined;
  readonly defaultGroupId: string | undefined;
}

/**
 * Matches what AWS accepts as MessageGroupId and MessageDeduplicationId: 1 to 128 of a-z, A-Z, 0-9 and ASCII
 * punctuation.
 */
const FIFO_ID = /^[!-~]{1,128}$/;
/**
 * The form of a hashed id. A string in this form is hashed too, so that it cannot equal the hashed id of another
 * string.
 */
const HASHED = /^sha256:[0-9a-f]{64}$/;

/**
 * Returns a message's group before any hashing: its key, or else the metadata entry that `groupIdKey` names, or else
 * the default.
 */
export function groupOf(message: Message, { groupIdKey, defaultGroupId }: FifoSettings): string | undefined {
  if (message.key !== undefined) return message.key;
  const named =
    groupIdKey !== undefined && Object.hasOwn(message.metadata, groupIdKey) ? message.metadata[groupIdKey] : undefined;
  return named === undefined || named === '' ? defaultGroupId : named;
}

/** @throws PublishError `permanent` for a message without a group. */
export async function fifoParameters(
  message: Message,
  group: string | undefined,
  settings: FifoSettings,
): Promise<FifoParameters> {
  if (group === undefined) {
    const metadata = settings.groupIdKey === undefined ? 'groupIdKey' : `metadata ${describe(settings.groupIdKey)}`;
    throw new PublishError(
      `message ${message.id} has no group for a FIFO destination: it has no key and no ${metadata}, and no defaultGroupId is set`,
      { kind: 'permanent' },
    );
  }
  return { MessageGroupId: await fifoId(group), MessageDeduplicationId: await fifoId(message.id) };
}

/**
 * Returns the string itself if AWS accepts it as an id, and otherwise `sha256:` and the hexadecimal hash of its UTF-8
 * bytes. The same string always has the same id, and different strings have different ids.
 */
async function fifoId(text: string): Promise<string> {
  if (FIFO_ID.test(text) && !HASHED.test(text)) return text;
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return `sha256:${Buffer.from(hash).toString('hex')}`;
}

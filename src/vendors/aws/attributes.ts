import { MessengerError, PublishError } from '../../core/errors.js';
import { describe, type Message } from '../../core/message.js';
import { isCarried } from './body.js';

/** The default of `messageIdKey`. */
export const MESSAGE_ID_KEY = 'message-id';

/**
 * The attribute with everything of a message that is neither its body, its id nor metadata that AWS
 * can carry as attributes. A JSON object:
 *
 * | field | meaning |
 * |---|---|
 * | `at` | when the application created it, ISO 8601 |
 * | `topic`, `key` | where it has them |
 * | `encoding` | `base64` when the body is base64, absent when it is the payload as text |
 * | `metadata` | entries whose name or value AWS refuses in an attribute (an empty value, a space in the name) |
 */
export const ENVELOPE_KEY = 'messenger';

/** Attributes of one message in SQS, and so in SNS with raw delivery to SQS, which drops messages with more. */
const MAX_ATTRIBUTES = 10;

/** Metadata entries that can be attributes: the id and the envelope need two. */
const MAX_METADATA = MAX_ATTRIBUTES - 2;

/** The content of the attribute `messenger`. */
export interface Envelope {
  at?: string;
  topic?: string;
  key?: string;
  encoding?: 'base64';
  metadata?: Record<string, string>;
}

/** Attribute names and their string values. */
export type Attributes = Readonly<Record<string, string>>;

const NAME = /^(?!aws\.|amazon\.)(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)$/i;

/** Whether AWS takes a name for an attribute. */
function isAttributeName(name: string): boolean {
  return NAME.test(name);
}

/** @throws MessengerError `INVALID_OPTION` for a `messageIdKey` that AWS or the envelope does not allow. */
export function checkMessageIdKey(value: unknown): string {
  if (typeof value === 'string' && isAttributeName(value) && value !== ENVELOPE_KEY) return value;
  throw new MessengerError(
    'INVALID_OPTION',
    `messageIdKey must be an attribute name that AWS allows (letters, digits, "_", "-" and "."), ` +
      `other than "${ENVELOPE_KEY}", got ${describe(value)}`,
  );
}

/**
 * The attributes of a message.
 *
 * @throws PublishError `permanent` for an id that can not be an attribute's value, and for more
 * metadata than there are attributes.
 */
export function encodeAttributes(message: Message, messageIdKey: string, base64: boolean): Attributes {
  if (!isCarried(message.id)) {
    throw new PublishError(`AWS can not carry the message id ${describe(message.id)} as an attribute`, {
      kind: 'permanent',
    });
  }
  const entries = Object.entries(message.metadata);
  const carried = entries.filter(([name, value]) => isPlain(name, value, messageIdKey));
  if (carried.length > MAX_METADATA) {
    throw new PublishError(
      `message ${message.id} has ${String(carried.length)} metadata entries, and AWS carries ${String(MAX_METADATA)} ` +
        `beside the attributes "${messageIdKey}" and "${ENVELOPE_KEY}": ${carried.map(([name]) => name).join(', ')}`,
      { kind: 'permanent' },
    );
  }
  const others = entries.filter(([name, value]) => !isPlain(name, value, messageIdKey));
  const envelope: Envelope = {
    at: message.at.toISOString(),
    ...(message.topic === undefined ? {} : { topic: message.topic }),
    ...(message.key === undefined ? {} : { key: message.key }),
    ...(base64 ? { encoding: 'base64' as const } : {}),
    ...(others.length === 0 ? {} : { metadata: Object.fromEntries(others) }),
  };
  return Object.fromEntries([...carried, [messageIdKey, message.id], [ENVELOPE_KEY, toJson(envelope)]]);
}

/** The envelope in a message's attributes; none where the attribute is missing or somebody else's. */
export function decodeEnvelope(attributes: Attributes): Envelope | undefined {
  const text = attributes[ENVELOPE_KEY];
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isEnvelope(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isPlain(name: string, value: string, messageIdKey: string): boolean {
  return name !== messageIdKey && name !== ENVELOPE_KEY && isAttributeName(name) && isCarried(value);
}

/** JSON escapes control characters itself; these two it leaves, and AWS would replace them. */
function toJson(envelope: Envelope): string {
  return JSON.stringify(envelope).replace(/[\ufffe\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16)}`);
}

function isEnvelope(value: unknown): value is Envelope {
  if (typeof value !== 'object' || value === null) return false;
  const { at, topic, key, metadata } = value as Record<string, unknown>;
  return (
    typeof at === 'string' &&
    !Number.isNaN(Date.parse(at)) &&
    (topic === undefined || typeof topic === 'string') &&
    (key === undefined || typeof key === 'string') &&
    (metadata === undefined ||
      (typeof metadata === 'object' &&
        metadata !== null &&
        Object.values(metadata).every((entry) => typeof entry === 'string')))
  );
}

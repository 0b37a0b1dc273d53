import { MessengerError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';
import { describe } from '../../../core/util/describe.js';
import { isCarried } from './body.js';

/** The default of `messageIdKey`. */
export const MESSAGE_ID_KEY = 'message-id';

/** The attributes with the message's topic and key, if it has them. Filter policies read them. */
export const TOPIC_KEY = 'topic';
export const KEY_KEY = 'key';

/**
 * The attribute with all parts of a message that are neither in the body nor in their own attributes. It is a JSON
 * object:
 *
 * | field | meaning |
 * |---|---|
 * | `at` | the time when the application created the message, ISO 8601 |
 * | `topic`, `key` | present if the message has them; older versions read them only from here |
 * | `own` | which of the `topic` and `key` attributes are the message's own, and not metadata |
 * | `id` | the message id, if AWS does not accept it in an attribute |
 * | `encoding` | `base64` if the body is base64, absent if the body is the payload as text |
 * | `metadata` | entries without an attribute: AWS rejects the name or value, the name is taken, or there are ten |
 */
export const ENVELOPE_KEY = 'messenger';

/**
 * The largest number of attributes on one message in SQS. The limit also applies to SNS with raw delivery to SQS, which
 * drops messages with more attributes.
 */
const MAX_ATTRIBUTES = 10;

/** How many metadata entries fit next to the id, the topic, the key and the envelope. */
const MAX_ATTRIBUTE_KEYS = MAX_ATTRIBUTES - 4;

/** Metadata entries that `defineOutbox` adds. Nobody filters by them, so the application's own entries go first. */
const ADDED = ['content-type', 'schema-version'];

/** The content of the `messenger` attribute. */
export interface Envelope {
  at?: string;
  topic?: string;
  key?: string;
  own?: readonly string[];
  id?: string;
  encoding?: 'base64';
  metadata?: Record<string, string>;
}

/** Attribute names and their string values. */
export type Attributes = Readonly<Record<string, string>>;

/** The settings that decide which attributes a publisher creates. */
export interface AttributeSettings {
  readonly messageIdKey: string;
  /** Metadata entries that become attributes before others. */
  readonly attributeKeys: readonly string[];
}

const NAME = /^(?!aws\.|amazon\.)(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)$/i;

/**
 * Whether AWS accepts an attribute name and the SDK keeps it. The SDK assigns attributes to plain objects, which loses
 * `__proto__`.
 */
function isAttributeName(name: string): boolean {
  return NAME.test(name) && name !== '__proto__';
}

/**
 * @param taken The names that the attribute must not have, in addition to the envelope's name.
 * @throws MessengerError `INVALID_OPTION` for a `messageIdKey` that AWS or the envelope does not allow.
 */
export function checkMessageIdKey(value: unknown, taken: readonly string[] = []): string {
  const others = [ENVELOPE_KEY, ...taken];
  if (typeof value === 'string' && isAttributeName(value) && !others.includes(value)) return value;
  throw new MessengerError(
    'INVALID_OPTION',
    `messageIdKey must be an attribute name that AWS allows (letters, digits, "_", "-" and "."), ` +
      `other than ${others.map((name) => `"${name}"`).join(', ')}, got ${describe(value)}`,
  );
}

/** @throws MessengerError `INVALID_OPTION` for `attributeKeys` that do not fit, or that AWS does not allow. */
export function checkAttributeKeys(value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length > MAX_ATTRIBUTE_KEYS) {
    throw new MessengerError(
      'INVALID_OPTION',
      `attributeKeys must be an array of at most ${String(MAX_ATTRIBUTE_KEYS)} metadata keys, got ${describe(value)}`,
    );
  }
  for (const name of value as unknown[]) {
    if (typeof name === 'string' && isAttributeName(name)) continue;
    throw new MessengerError(
      'INVALID_OPTION',
      `attributeKeys must be attribute names that AWS allows (letters, digits, "_", "-" and "."), got ${describe(name)}`,
    );
  }
  return [...(value as string[])];
}

/**
 * Returns the attributes of a message. They carry as much of the message as they can, and the envelope carries the
 * rest.
 */
export function encodeAttributes(message: Message, settings: AttributeSettings, base64: boolean): Attributes {
  const { id, topic, key } = message;
  const own = Object.entries({ [TOPIC_KEY]: topic, [KEY_KEY]: key }).filter(isCarriedEntry);
  const named = isCarried(id) ? [[settings.messageIdKey, id] as const] : [];
  // A filter policy would take a metadata entry named `topic` for the message's topic, whether or not the topic itself
  // is an attribute.
  const taken = [settings.messageIdKey, ENVELOPE_KEY];
  if (topic !== undefined) taken.push(TOPIC_KEY);
  if (key !== undefined) taken.push(KEY_KEY);
  const rank = (name: string): number => (settings.attributeKeys.includes(name) ? 0 : ADDED.includes(name) ? 2 : 1);
  const entries = Object.entries(message.metadata);
  const fitting = entries
    .filter((entry) => isAttributeName(entry[0]) && isCarriedEntry(entry) && !taken.includes(entry[0]))
    .sort(([a], [b]) => rank(a) - rank(b))
    .slice(0, MAX_ATTRIBUTES - 1 - named.length - own.length);
  const names = new Set(fitting.map(([name]) => name));
  const others = entries.filter(([name]) => !names.has(name));
  const envelope: Envelope = {
    at: message.at.toISOString(),
    ...(topic === undefined ? {} : { topic }),
    ...(key === undefined ? {} : { key }),
    ...(own.length === 0 ? {} : { own: own.map(([name]) => name) }),
    ...(named.length > 0 ? {} : { id }),
    ...(base64 ? { encoding: 'base64' as const } : {}),
    ...(others.length === 0 ? {} : { metadata: Object.fromEntries(others) }),
  };
  return Object.fromEntries([...fitting, ...own, ...named, [ENVELOPE_KEY, toJson(envelope)]]);
}

/**
 * Returns the envelope in a message's attributes, or `undefined` if the attribute is missing or comes from another
 * sender.
 */
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

/** Whether the value of an entry can be an attribute. */
function isCarriedEntry(entry: [string, string | undefined]): entry is [string, string] {
  return entry[1] !== undefined && isCarried(entry[1]);
}

/** `JSON.stringify` escapes control characters, but not these two characters, which AWS would replace. */
function toJson(envelope: Envelope): string {
  return JSON.stringify(envelope).replace(/[\ufffe\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16)}`);
}

function isEnvelope(value: unknown): value is Envelope {
  if (typeof value !== 'object' || value === null) return false;
  const { at, topic, key, own, id, metadata } = value as Record<string, unknown>;
  return (
    typeof at === 'string' &&
    !Number.isNaN(Date.parse(at)) &&
    [topic, key, id].every((text) => text === undefined || typeof text === 'string') &&
    (own === undefined || (Array.isArray(own) && own.every((name) => typeof name === 'string'))) &&
    (metadata === undefined ||
      (typeof metadata === 'object' &&
        metadata !== null &&
        Object.values(metadata).every((entry) => typeof entry === 'string')))
  );
}

import { MessengerError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';

/**
 * The longest key, in bytes. An index on the side table contains the key and the name of a destination, and has some
 * room to spare. The limit applies to the uncompressed key, because a writer cannot predict how well PostgreSQL will
 * compress it.
 */
export const LONGEST_KEY = 2_000;

/** The longest id and topic, in bytes. A relay reads both with every message, even if the message is too large. */
const LONGEST_NAME = 4_000;

const MIB = 1024 * 1024;

/**
 * The largest payload, in bytes. The server sends two characters for each byte, and Node's longest string has 512 Mi
 * characters.
 */
const LARGEST_PAYLOAD = 64 * MIB;

/** The largest metadata, in bytes, in the form in which PostgreSQL stores them. */
const LARGEST_METADATA = MIB;

/**
 * How many characters of JSON one call can store. A call with a single message can exceed this limit. While the JSON is
 * sent, memory holds several copies of it. The messages themselves take even more memory.
 */
const LARGEST_CALL = 128 * MIB;

/**
 * Encodes messages as the JSON array that the `store` statement takes.
 *
 * @throws MessengerError for a message that cannot be stored, or for more messages than one statement can store.
 */
export function encodeMessages(messages: readonly Message[], jsonPayload: boolean): string {
  // Encode the messages one at a time, so that only the JSON of a message stays in memory while the next message is
  // encoded.
  const texts: string[] = [];
  let length = 0;
  let between = '[';
  for (const [n, message] of messages.entries()) {
    const text = JSON.stringify(recordOf(message, jsonPayload));
    length += text.length + 1;
    if (length > LARGEST_CALL && n > 0) throw tooMuch(n, messages.length);
    texts.push(between, text);
    between = ',';
  }
  // Join the strings once, because each append to a long string would copy it again.
  texts.push(texts.length === 0 ? '[]' : ']');
  return texts.join('');
}

function recordOf(message: Message, jsonPayload: boolean) {
  const { id, topic, key, metadata, at, deliverAt, holdKey, destination } = message;
  assertStorable(message);
  const bytes = Buffer.from(message.payload.buffer, message.payload.byteOffset, message.payload.byteLength);
  const payload = jsonPayload ? jsonText(bytes, id) : bytes.toString('base64');
  return { id, topic, key, metadata, at, deliverAt, holdKey, destination, payload };
}

/**
 * Rejects messages that cannot be stored. The log rejects them too, but its errors are less helpful. If the side table
 * rejected a key, every relay that has to park the message would end with an error. If a message could not be read,
 * every relay that reaches it would end with an error.
 */
function assertStorable({ id, topic, key, payload, metadata }: Message): void {
  assertLength('id', id, LONGEST_NAME, '');
  const of = ` of message ${id}`;
  if (key !== undefined) assertLength('key', key, LONGEST_KEY, of);
  if (topic !== undefined) assertLength('topic', topic, LONGEST_NAME, of);
  if (payload.byteLength > LARGEST_PAYLOAD) {
    throw tooLarge(`the payload${of}`, LARGEST_PAYLOAD, payload.byteLength);
  }
  const bytes = metadataBytes(metadata);
  if (bytes > LARGEST_METADATA) throw tooLarge(`the metadata${of}`, LARGEST_METADATA, bytes);
}

function assertLength(field: string, value: string, most: number, of: string): void {
  // A UTF-16 unit takes at most three bytes.
  if (value.length * 3 <= most) return;
  const bytes = Buffer.byteLength(value);
  if (bytes <= most) return;
  const which = of === '' ? ` of a message, ${JSON.stringify(`${value.slice(0, 77)}...`)},` : of;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `the ${field}${which} must have at most ${String(most)} bytes, got ${String(bytes)}`,
  );
}

function tooLarge(what: string, most: number, bytes: number): MessengerError {
  return new MessengerError(
    'INVALID_MESSAGE',
    `${what} must have at most ${String(most)} bytes, got ${String(bytes)}: keep large data elsewhere, such as in an object store, and send a reference to it`,
  );
}

function tooMuch(fits: number, all: number): MessengerError {
  return new MessengerError(
    'INVALID_MESSAGE',
    `${String(all)} messages are too many for one call of add: the first ${String(fits)} of them fill the ${String(LARGEST_CALL)} characters of JSON that one call takes. Store them with several calls in the same transaction`,
  );
}

/**
 * Returns how many bytes PostgreSQL needs for an object of strings. Far below the limit, it returns only a lower bound.
 */
function metadataBytes(metadata: Message['metadata']): number {
  let units = 0;
  let entries = 0;
  for (const name in metadata) {
    units += name.length + (metadata[name]?.length ?? 0);
    entries += 1;
  }
  // In JSON, a UTF-16 unit takes at most six characters. Each entry adds quotes, a colon, a comma and two spaces.
  if (6 * units + 8 * entries + 2 <= LARGEST_METADATA) return units;
  return Buffer.byteLength(JSON.stringify(metadata)) + 2 * entries - 1;
}

// Keep a byte order mark, so that the JSON parser rejects it. JSON does not allow one, and removing it would silently
// change the payload.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function jsonText(bytes: Uint8Array, id: string): string {
  try {
    const text = decoder.decode(bytes);
    JSON.parse(text);
    return text;
  } catch (cause) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `the payload of message ${id} is not JSON, which the jsonPayload option requires`,
      { cause },
    );
  }
}

import { MessengerError } from '../../core/errors.js';
import { assertMessage, type Message } from '../../core/message.js';

/**
 * What the side table's index of keys takes beside the name of a destination, and some room. Bytes, of the key as it
 * is: how far one can be compressed nobody can tell who writes it.
 */
export const LONGEST_KEY = 2_000;

/** Messages as the JSON array that the `store` statement takes. @throws for a message that can not be stored. */
export function encodeMessages(messages: readonly Message[], jsonPayload: boolean): string {
  return JSON.stringify(
    messages.map((message) => {
      assertMessage(message);
      const { id, topic, key, metadata, at, deliverAt, holdKey, destination } = message;
      assertSettable(key, id);
      const bytes = Buffer.from(message.payload.buffer, message.payload.byteOffset, message.payload.byteLength);
      const payload = jsonPayload ? jsonText(bytes, id) : bytes.toString('base64');
      return { id, topic, key, metadata, at, deliverAt, holdKey, destination, payload };
    }),
  );
}

/** The log refuses such a key too, with less to say of it. One that the side table does not take would end each relay that has to set its message aside. */
function assertSettable(key: string | undefined, id: string): void {
  const bytes = key === undefined ? 0 : Buffer.byteLength(key);
  if (bytes <= LONGEST_KEY) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `the key of message ${id} must have ${String(LONGEST_KEY)} bytes at most, got ${String(bytes)}`,
  );
}

// A byte order mark is kept, and then refused: JSON has none, and no byte is taken away in silence.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function jsonText(bytes: Uint8Array, id: string): string {
  try {
    const text = decoder.decode(bytes);
    JSON.parse(text);
    return text;
  } catch (cause) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `the payload of message ${id} is not JSON, which the option jsonPayload demands`,
      { cause },
    );
  }
}

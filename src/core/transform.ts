import { MessengerError } from './errors.js';
import { assertMessage, describe, newMessage, type Message } from './message.js';

/** What the default transform takes: a ready message, bytes, a string, or an object to be sent as JSON. */
export type MessageInput = Message | Uint8Array | string | object;

/** Makes a message of whatever the application stores. */
export type Transform<Input = MessageInput> = (input: Input) => Message;

/** Whether a value has the shape of a message: the fields that nothing but a message has together. */
export function isMessage(value: unknown): value is Message {
  const candidate = value as Partial<Message> | null;
  return (
    typeof candidate === 'object' &&
    candidate !== null &&
    'id' in candidate &&
    'metadata' in candidate &&
    'payload' in candidate &&
    'at' in candidate
  );
}

/**
 * The default transform: a ready message stays as it is; bytes and strings become the payload; any
 * other object becomes JSON, with the metadata `content-type: application/json`.
 *
 * @throws EmptyMessagePayloadError for nothing, `''` or zero bytes.
 * @throws MessengerError `INVALID_MESSAGE` for what can not be a message (a number, a function, a cycle).
 */
export function defaultTransform(input: MessageInput): Message {
  if (isMessage(input)) {
    assertMessage(input);
    return input;
  }
  const value: unknown = input;
  if (value === undefined || value === null || typeof value === 'string' || value instanceof Uint8Array) {
    return newMessage(value as string | Uint8Array);
  }
  if (typeof value !== 'object') {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `can not make a message of ${describe(value)}: give a message, bytes, a string or an object, or a transform of your own`,
    );
  }
  return newMessage(toJson(value), { metadata: { 'content-type': 'application/json' } });
}

/** As it really is: `undefined` for what has no JSON form, which the library's type leaves out. */
const stringify: (value: unknown) => string | undefined = JSON.stringify;

function toJson(value: object): string {
  let json: string | undefined;
  try {
    json = stringify(value);
  } catch (cause) {
    throw new MessengerError('INVALID_MESSAGE', `can not make JSON of ${describe(value)}`, { cause });
  }
  if (json === undefined) throw new MessengerError('INVALID_MESSAGE', `${describe(value)} has no JSON form`);
  // A Promise that was not awaited, a Map, an ArrayBuffer: what they hold would silently be lost.
  if (json === '{}' && !isPlain(value)) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `can not make JSON of ${describe(value)}: nothing of it would be in it`,
    );
  }
  return json;
}

/** Whether an object says by itself what its JSON is. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null || 'toJSON' in value;
}

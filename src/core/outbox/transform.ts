import { MessengerError } from '../errors.js';
import { faultText, jsonOf, lostBy } from './json.js';
import { assertMessage, newMessage, type Message } from '../contracts/message.js';
import { describe } from '../util/describe.js';

/** The values that the default transform accepts: a complete message, bytes, a string, or an object to send as JSON. */
export type MessageInput = Message | Uint8Array | string | object;

/** Turns the value that the application stores into a message. */
export type Transform<Input = MessageInput> = (input: Input) => Message;

/** Whether a value is a message. No other value is expected to have all these fields. */
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
 * The default transform. It returns a complete message unchanged. Bytes and strings become the payload. Any other
 * object becomes JSON, with the metadata `content-type: application/json`. A Date, or any other object with a `toJSON`
 * method, is converted with that method. Properties that are `undefined`, and properties whose keys are symbols, are
 * left out.
 *
 * @throws EmptyMessagePayloadError for `undefined`, `null`, `''` or zero bytes.
 * @throws MessengerError `INVALID_MESSAGE` for a value that cannot become a message, such as a number or a function.
 *   Also for an object that JSON cannot represent exactly, such as one that contains a BigInt, a cycle, `NaN`, a Map,
 *   or `undefined` in an array. The error then names the path of the part that JSON cannot represent.
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
      `cannot make a message from ${describe(value)}: pass a message, bytes, a string or an object, or give the store a transform`,
    );
  }
  return newMessage(toJson(value), { metadata: { 'content-type': 'application/json' } });
}

/**
 * Returns the transform for a store. If a transform is given, adds a check of its messages. Otherwise, returns the
 * default transform, which already checks its messages. So each message is checked exactly once.
 */
export function checkedTransform<Input>(transform: Transform<Input> | undefined): Transform<Input> {
  if (transform === undefined) return defaultTransform as unknown as Transform<Input>;
  return (input) => {
    const message = transform(input);
    assertMessage(message);
    return message;
  };
}

function toJson(value: object): string {
  const json = jsonOf(value, describe(value));
  const fault = lostBy(value);
  if (fault === undefined) return json;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `cannot make JSON from ${describe(value)}: ${faultText(fault)}, which JSON drops or changes`,
  );
}

import { MessengerError } from '../../core/errors.js';
import { describe } from '../../core/message.js';

/** @throws MessengerError `INVALID_OPTION` unless the value is a string that `pattern` accepts. */
export function matchingText(name: string, value: unknown, pattern: RegExp, meaning: string): string {
  if (typeof value === 'string' && pattern.test(value)) return value;
  throw new MessengerError('INVALID_OPTION', `${name} must be ${meaning}, got ${describe(value)}`);
}

/** @throws MessengerError `INVALID_OPTION` unless the value has a `send` method, as the SDK's clients have. */
export function checkClient(value: unknown, kind: string): void {
  if (typeof (value as { send?: unknown } | null | undefined)?.send === 'function') return;
  throw new MessengerError('INVALID_OPTION', `client must be ${kind} of the AWS SDK v3, got ${describe(value)}`);
}

/** @throws MessengerError `INVALID_OPTION` for anything but an object with these keys: a misspelt option is not ignored. */
export function checkKeys(options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null) {
    throw new MessengerError('INVALID_OPTION', `options must be an object, got ${describe(options)}`);
  }
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw new MessengerError('INVALID_OPTION', `unknown option ${describe(unknown)}; known are ${known.join(', ')}`);
  }
}

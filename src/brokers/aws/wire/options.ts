import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';

/** @throws MessengerError `INVALID_OPTION` unless the value is a string that matches `pattern`. */
export function matchingText(name: string, value: unknown, pattern: RegExp, meaning: string): string {
  if (typeof value === 'string' && pattern.test(value)) return value;
  throw new MessengerError('INVALID_OPTION', `${name} must be ${meaning}, got ${describe(value)}`);
}

/** @throws MessengerError `INVALID_OPTION` unless the value has a `send` method, as the SDK's clients do. */
export function checkClient(value: unknown, kind: string): void {
  if (typeof (value as { send?: unknown } | null | undefined)?.send === 'function') return;
  throw new MessengerError('INVALID_OPTION', `client must be ${kind} of the AWS SDK v3, got ${describe(value)}`);
}

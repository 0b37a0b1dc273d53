import { messageOf, type FailureKind } from '../errors.js';

/** How many characters of an error's message are compared. */
const COMPARED = 300;

/**
 * Returns the signature of a failure. Failures with the same signature count as similar. A signature consists of the
 * failure's kind and the error's name, code and message. Parts of the error's message that vary are left out: quoted
 * values, numbers, and words that contain a digit, which are probably ids.
 */
export function signatureOf(error: Error, kind: FailureKind): string {
  const { code } = error as { code?: unknown };
  const text = messageOf(error)
    .slice(0, COMPARED)
    .replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '""')
    .replace(/[\w-]*\d[\w-]*/g, '#');
  return [kind, error.name, typeof code === 'string' || typeof code === 'number' ? code : '', text].join('|');
}

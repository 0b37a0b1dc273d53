import { messageOf, type FailureKind } from '../errors.js';

/** How many characters of an error's text are compared. */
const COMPARED = 300;

/**
 * The signature of a failure. Two failures are alike if their signatures are equal. A signature consists of kind, name,
 * code and text, without the parts of the text that differ from message to message: quoted values, numbers, and words
 * that contain a digit, which are ids.
 */
export function signatureOf(error: Error, kind: FailureKind): string {
  const { code } = error as { code?: unknown };
  const text = messageOf(error)
    .slice(0, COMPARED)
    .replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '""')
    .replace(/[\w-]*\d[\w-]*/g, '#');
  return [kind, error.name, typeof code === 'string' || typeof code === 'number' ? code : '', text].join('|');
}

import { messageOf, type FailureKind } from '../errors.js';

/** As much of an error's text as is compared. */
const COMPARED = 300;

/**
 * What two failures have in common when they are alike: kind, name, code and text, without what differs
 * from message to message (quoted values, numbers, and words with a digit in them, which are ids).
 */
export function signatureOf(error: Error, kind: FailureKind): string {
  const { code } = error as { code?: unknown };
  const text = messageOf(error)
    .slice(0, COMPARED)
    .replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '""')
    .replace(/[\w-]*\d[\w-]*/g, '#');
  return [kind, error.name, typeof code === 'string' || typeof code === 'number' ? code : '', text].join('|');
}

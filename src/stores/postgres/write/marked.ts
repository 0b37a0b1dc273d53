import { MessengerError } from '../../../core/errors.js';

/** The deepest level at which libraries nest a row in their results. */
const DEPTH = 5;

/**
 * Returns the string that a statement returned through the application's transaction, without the mark at its
 * beginning. Libraries return rows in different structures, so the function searches the result for a string that
 * begins with the mark.
 *
 * @throws MessengerError `UNSUPPORTED` if the library returns no rows.
 */
export function textAfter(mark: string, result: unknown): string {
  const text = markedText(mark, result);
  if (text !== undefined) return text.slice(mark.length);
  throw new MessengerError(
    'UNSUPPORTED',
    'this transaction handle does not return the rows of a statement: the function that you pass as a handle must resolve to the rows',
  );
}

/** Returns the same string with its mark, or `undefined` if the library returns no rows. */
export function markedText(mark: string, result: unknown): string | undefined {
  return marked(mark, result, DEPTH);
}

function marked(mark: string, value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return value.startsWith(mark) ? value : undefined;
  if (typeof value !== 'object' || value === null || depth === 0) return undefined;
  for (const each of Object.values(value)) {
    const found = marked(mark, each, depth - 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

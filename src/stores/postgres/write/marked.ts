import { MessengerError } from '../../../core/errors.js';

/** How deep libraries wrap a row. */
const DEPTH = 5;

/**
 * The one text that a statement has returned through a transaction of the application, without the mark that it
 * begins with: whatever a library makes of rows, it is found by that.
 *
 * @throws MessengerError `UNSUPPORTED` where it gives no rows.
 */
export function textAfter(mark: string, result: unknown): string {
  const text = markedText(mark, result);
  if (text !== undefined) return text.slice(mark.length);
  throw new MessengerError(
    'UNSUPPORTED',
    'this transaction handle does not give back what a statement returns: its function must resolve to the rows',
  );
}

/** The same with its mark; `undefined` where a library gives no rows. */
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

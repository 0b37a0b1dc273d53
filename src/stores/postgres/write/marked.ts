import { MessengerError } from '../../../core/errors.js';

/** How deeply libraries nest a row. */
const DEPTH = 5;

/**
 * The text that a statement returned through a transaction of the application, without the mark with which it begins.
 * The mark finds the text, whatever shape a library gives to rows.
 *
 * @throws MessengerError `UNSUPPORTED` where the library gives no rows.
 */
export function textAfter(mark: string, result: unknown): string {
  const text = markedText(mark, result);
  if (text !== undefined) return text.slice(mark.length);
  throw new MessengerError(
    'UNSUPPORTED',
    'this transaction handle does not return the rows of a statement: the function that you pass as a handle must resolve to them',
  );
}

/** The same with its mark; `undefined` where the library gives no rows. */
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

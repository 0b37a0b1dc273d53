/**
 * The one text that a statement returned, found by what it begins with: whatever a library makes of rows.
 * `undefined` where it gives none.
 */
export function marked(result: unknown, mark: string, depth = 5): string | undefined {
  if (typeof result === 'string') return result.startsWith(mark) ? result.slice(mark.length) : undefined;
  if (typeof result !== 'object' || result === null || depth === 0) return undefined;
  for (const each of Object.values(result)) {
    const found = marked(each, mark, depth - 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Why a handle can not be used for what has an answer. */
export const NO_ANSWER =
  'this transaction handle does not give back what a statement returns: its function must resolve to the rows';

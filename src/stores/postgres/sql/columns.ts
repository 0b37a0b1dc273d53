import type { Row } from './database.js';

/** The expression of each column of a statement. */
export type Expressions<C extends string> = Readonly<Record<C, string>>;

/**
 * The columns of a statement whose rows come as arrays: what the statement selects, and where a decoder finds each
 * column.
 */
export interface Columns<C extends string> {
  readonly names: readonly C[];
  /** The index of each column in a row. */
  readonly at: Readonly<Record<C, number>>;
  /**
   * The list after SELECT. Its columns have no names, because a name could hide a column of the table from ORDER BY.
   */
  list(expressions: Expressions<C>): string;
  /** The same list with names, for a subquery. */
  named(expressions: Expressions<C>): string;
}

/** Columns in this order. A decoder finds a column by its name, so a new one can be added anywhere. */
export function columnsOf<const C extends string>(...names: readonly C[]): Columns<C> {
  return {
    names,
    // Frozen, so that the compiler treats a position as a constant, and reading it costs no more than a number.
    at: Object.freeze(Object.fromEntries(names.map((name, index) => [name, index]))) as Readonly<Record<C, number>>,
    list: (expressions) => names.map((name) => expressions[name]).join(', '),
    named: (expressions) => names.map((name) => `${expressions[name]} AS ${name}`).join(', '),
  };
}

/** The time of so many milliseconds since 1970. */
export function timeOf(value: Row[number]): Date | null {
  return value === null ? null : new Date(Number(value));
}

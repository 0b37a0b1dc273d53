import type { Row } from './database.js';

/** The SQL expression for each column in a statement. */
export type Expressions<C extends string> = Readonly<Record<C, string>>;

/**
 * The columns of a statement that returns its rows as arrays. A statement takes its SELECT list from here, and a
 * decoder takes the position of each column.
 */
export interface Columns<C extends string> {
  readonly names: readonly C[];
  /** The index of each column in a row. */
  readonly at: Readonly<Record<C, number>>;
  /**
   * Returns the list of expressions after SELECT. It does not name them, because a name could hide a table column from
   * ORDER BY.
   */
  list(expressions: Expressions<C>): string;
  /** Returns the same list with names, for a subquery. */
  named(expressions: Expressions<C>): string;
}

/** Defines columns in this order. Decoders find a column by its name, so a new column can be added anywhere. */
export function columnsOf<const C extends string>(...names: readonly C[]): Columns<C> {
  return {
    names,
    // The object is frozen so that the compiler treats each position as a constant. Reading a position then costs no
    // more than reading a number.
    at: Object.freeze(Object.fromEntries(names.map((name, index) => [name, index]))) as Readonly<Record<C, number>>,
    list: (expressions) => names.map((name) => expressions[name]).join(', '),
    named: (expressions) => names.map((name) => `${expressions[name]} AS ${name}`).join(', '),
  };
}

/** Converts milliseconds since 1970 to a Date. */
export function timeOf(value: Row[number]): Date | null {
  return value === null ? null : new Date(Number(value));
}

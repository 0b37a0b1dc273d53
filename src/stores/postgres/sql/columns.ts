import type { Row } from './database.js';

/** What each column of a statement selects. */
export type Expressions<C extends string> = Readonly<Record<C, string>>;

/** The columns of a statement, whose rows come as arrays, in one place: what it selects, and where a decoder finds it. */
export interface Columns<C extends string> {
  readonly names: readonly C[];
  /** The index of each in a row. */
  readonly at: Readonly<Record<C, number>>;
  /** The list that follows SELECT. Its columns have no names, which could hide those of a table from ORDER BY. */
  list(expressions: Expressions<C>): string;
  /** The same with their names, to be selected from. */
  named(expressions: Expressions<C>): string;
}

/** Columns in this order. One that is added among them shifts no other. */
export function columnsOf<const C extends string>(...names: readonly C[]): Columns<C> {
  return {
    names,
    // Frozen, a position costs what a number in its place would: the compiler takes it for a constant.
    at: Object.freeze(Object.fromEntries(names.map((name, index) => [name, index]))) as Readonly<Record<C, number>>,
    list: (expressions) => names.map((name) => expressions[name]).join(', '),
    named: (expressions) => names.map((name) => `${expressions[name]} AS ${name}`).join(', '),
  };
}

/** Milliseconds as a time. */
export function timeOf(value: Row[number]): Date | null {
  return value === null ? null : new Date(Number(value));
}

/**
 * How a store writes through the transaction of a query builder or an ORM. `messenger-outbox/drizzle` and similar
 * subpaths each have a function that makes a bridge. A bridge of your own is an object like this:
 *
 * @example
 * ```ts
 * const bridge: TransactionBridge<MyTransaction> = {
 *   handleName: 'the transaction of my database layer',
 *   isHandle: (handle) => handle instanceof MyTransaction,
 *   execute: (transaction, text, values) => transaction.execute(text, values),
 * };
 * ```
 */
export interface TransactionBridge<Tx> {
  /** How error messages name the handle that the bridge accepts: `the transaction of Drizzle's db.transaction`. */
  readonly handleName: string;
  /** Whether a value is a handle of this library. True for its root handle too, which `refusalOf` then refuses. */
  isHandle(handle: unknown): boolean;
  /**
   * Whether each transaction has its own handle. If so, the store notes the transaction of each handle through which it
   * writes. It refuses a handle whose connection is in another transaction by then. @default false
   */
  readonly hasHandlePerTransaction?: boolean;
  /**
   * Returns why the store cannot write through a handle now, and what to pass instead. Returns `undefined` if it can.
   * @default no handle is refused
   */
  refusalOf?(handle: Tx): string | undefined;
  /**
   * Runs one statement in the transaction. `values` are the values of `$1`, `$2` …, and all of them are text.
   *
   * @throws what the library throws. The application gets that error unchanged.
   */
  execute(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /**
   * Runs one statement that returns one row with one column of text. Resolves to that row, in any form in which the
   * library returns rows.
   * @default `execute` runs it
   */
  queryText?(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /**
   * Calls back once the transaction has committed. It can also call back after a rollback.
   * @default the store does not learn of commits
   */
  onCommit?(handle: Tx, callback: () => void): void;
}

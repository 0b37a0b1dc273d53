/**
 * Lets a store write in the transaction of a query builder or an ORM. `messenger-outbox/drizzle` and similar subpaths
 * each export a function that creates a bridge. You can also write your own bridge:
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
  /**
   * What error messages call the handle that the bridge accepts, such as `the transaction of Drizzle's db.transaction`.
   */
  readonly handleName: string;
  /** Whether a value is one of the library's handles. Also true for the root handle, which `refusalOf` then rejects. */
  isHandle(handle: unknown): boolean;
  /**
   * Whether each transaction has its own handle. If true, the store remembers which transaction each handle belongs to.
   * It rejects a handle whose connection has since moved on to another transaction.
   * @default false
   */
  readonly hasHandlePerTransaction?: boolean;
  /**
   * Returns why the store cannot write through a handle at the moment, and what to pass instead. Returns `undefined` if
   * the store can write through it.
   * @default no handle is rejected
   */
  refusalOf?(handle: Tx): string | undefined;
  /**
   * Runs one statement in the transaction. `values` contains the values for the parameters `$1`, `$2` …, all as
   * strings.
   *
   * @throws what the library throws. The application gets that error unchanged.
   */
  execute(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /**
   * Runs one statement that returns one row with one text column. Resolves to that row, in whatever form the library
   * returns rows.
   * @default the statement is run with `execute`
   */
  queryText?(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /**
   * Calls `callback` once the transaction has committed. It can also call `callback` after a rollback.
   * @default the store is not told about commits
   */
  onCommit?(handle: Tx, callback: () => void): void;
}

/**
 * How a store writes through the transaction of a query builder or an ORM. `messenger-outbox/drizzle` and its
 * neighbours make one each; one of your own is an object like this.
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
  /** What it takes, as error messages say it: `the transaction of Drizzle's db.transaction`. */
  readonly handleName: string;
  /** Whether a value is of this library: its root handle as well, which `refusalOf` then refuses. */
  isHandle(handle: unknown): boolean;
  /**
   * Whether each transaction has a handle of its own. Then one whose connection is in another transaction by now is
   * refused, once it has been written through. @default false
   */
  readonly hasHandlePerTransaction?: boolean;
  /** Why a handle cannot be written through now, and what to pass instead. @default none is refused */
  refusalOf?(handle: Tx): string | undefined;
  /**
   * Runs one statement in the transaction. `values` stand for `$1`, `$2` …, and all of them are text.
   *
   * @throws what the library throws: it surfaces as it is.
   */
  execute(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /**
   * The same for a statement that returns one row of one text: resolves to it, however the library wraps rows.
   * @default as `execute` does
   */
  queryText?(handle: Tx, text: string, values: readonly string[]): PromiseLike<unknown>;
  /** Calls back once the transaction has committed, and maybe also after a rollback. @default nothing tells */
  onCommit?(handle: Tx, callback: () => void): void;
}

/** The options that every call to a store has. */
export interface StoreCallOptions {
  /** When this signal aborts, the call no longer waits for the store. */
  readonly signal?: AbortSignal | undefined;
}

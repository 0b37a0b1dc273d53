/** The options for every call to a store. */
export interface StoreCallOptions {
  /** When this signal aborts, the call no longer waits for the store. */
  readonly signal?: AbortSignal | undefined;
}

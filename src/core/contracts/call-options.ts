/** What every call to a store can be told. */
export interface StoreCallOptions {
  /** Stops waiting for the store. */
  readonly signal?: AbortSignal | undefined;
}

import type { StoreCallOptions } from './call.js';
import type { Feed, FeedOptions } from './feed.js';
import type { Message } from './message.js';

/**
 * The contract of a datastore, and all that one relay needs: whoever implements these three methods
 * has a working store. The relay never calls two of them at once.
 */
export interface Store {
  /** Up to `batch` unpublished messages, in the order in which they are to be published. */
  messages(batch: number, options?: StoreCallOptions): Promise<readonly Message[]>;
  /** Marks messages as published: all of them, or none if one can not be. */
  published(...messages: readonly Message[]): Promise<void>;
  /** Deletes messages that are published and older than `expiration`, in milliseconds. */
  deletePublishedByExpiration(expiration: number, options?: StoreCallOptions): Promise<void>;
}

/** A store that relays can work on without a scan per page: leases, cursors, failures set aside. */
export interface FeedStore extends Store {
  /**
   * Takes this relay's share of a destination's partitions and opens its feed, or resolves to `null`
   * while others hold all of them: to be asked again.
   */
  openFeed(options: FeedOptions): Promise<Feed | null>;
}

/** Whether a store offers feeds. */
export function isFeedStore(store: Store): store is FeedStore {
  return typeof (store as Partial<FeedStore>).openFeed === 'function';
}

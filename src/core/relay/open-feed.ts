import { systemClock, type Clock } from '../util/clock.js';
import type { Feed, FeedOptions } from '../contracts/feed.js';
import { isFeedStore, type Store } from '../contracts/store.js';
import { listStoreFeed } from './list-store-feed.js';

/** Opens a feed for any store: the store's own feed if the store offers one, or else a feed from `listStoreFeed`. */
export async function openFeed(store: Store, options: FeedOptions, clock: Clock = systemClock): Promise<Feed | null> {
  return isFeedStore(store) ? store.openFeed(options) : listStoreFeed(store, options.pageSize, clock);
}

/**
 * Wraps a store so that its methods are called one at a time. The `Store` contract promises that, but a relay makes
 * overlapping calls.
 */
export function oneAtATime(store: Store): Store {
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(call: () => Promise<T>): Promise<T> => {
    const result = last.then(call);
    last = result.catch(() => undefined);
    return result;
  };
  const retention = store.retention?.bind(store);
  return {
    messages: (batch, options) => inTurn(() => store.messages(batch, options)),
    published: (...messages) => inTurn(() => store.published(...messages)),
    deletePublishedByExpiration: (expiration, options) =>
      inTurn(() => store.deletePublishedByExpiration(expiration, options)),
    ...(retention && { retention: (options) => inTurn(() => retention(options)) }),
  };
}

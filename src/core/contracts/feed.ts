import type { Message } from './message.js';
import type { StoreCallOptions } from './call-options.js';

/** The destination of a relay or a call that does not name one. */
export const DEFAULT_DESTINATION = 'default';

/** The options for opening a feed. */
export interface FeedOptions extends StoreCallOptions {
  /** The destination whose cursors, parked messages and leases the feed uses. */
  readonly destination: string;
  /** How many messages the relay publishes together. The store can use this to decide how far to read ahead. */
  readonly pageSize: number;
  /**
   * The name that identifies this relay to the destination's other relays. It is random, and a relay uses the same name
   * for every feed that it opens. From the first call on, the other relays make room for this relay, even while no
   * partition is free. A caller without a name is temporary: it takes free partitions, and no relay makes room for it.
   * Two relays with the same name count as one. They get one relay's share of the partitions, and no message is lost.
   */
  readonly relay?: string | undefined;
  /** Receives errors that do not end the feed. */
  readonly tell?: ((error: Error) => void) | undefined;
}

/** The options for `idle`, which a relay calls when it has nothing to do. */
export interface IdleOptions extends StoreCallOptions {
  /**
   * The most milliseconds that `idle` can take if the feed is sure to be notified of every stored message.
   * @default the `ms` of the call
   */
  readonly interval?: number | undefined;
}

/** The options for closing a feed. */
export interface CloseOptions {
  /**
   * Whether the relay will open another feed at once. If true, the other relays do not treat it as gone.
   * @default false
   */
  readonly stays?: boolean | undefined;
}

/** Messages that are published and settled together, in order. */
export interface Page {
  readonly messages: readonly Message[];
  /**
   * How many times each message has failed so far, with one number for each message. Absent if no message has failed.
   */
  readonly attempts?: readonly number[];
  /**
   * The messages in the page that cannot be passed to a publisher, each with the reason. When it is such a message's
   * turn, the relay treats it like a message that the broker rejected permanently.
   */
  readonly unreadable?: ReadonlyMap<Message, Error> | undefined;
}

/** A message from a page that was not acknowledged, and how the store must park it. */
export interface ToPark {
  readonly message: Message;
  /** How many times the message has failed so far, including this attempt. */
  readonly attempts: number;
  /** Why the attempt failed; absent if the message only waits behind an earlier message with the same key. */
  readonly error?: Error;
  /**
   * Milliseconds until the next attempt. Absent if the message waits behind an earlier message, or if the time of its
   * next attempt stays the same.
   */
  readonly retryIn?: number;
  /**
   * Whether the message is a dead letter. It is not tried again but kept for an operator, and later messages with its
   * key are still published.
   */
  readonly dead: boolean;
  /**
   * Whether the call for this message is still unanswered. Until the message is settled again, as part of a page that
   * consists only of such messages, `retries` returns neither this message nor the messages behind it. The next feed
   * ignores this field, and returns the messages after `retryIn` at the latest.
   */
  readonly outstanding?: boolean;
  /**
   * Whether the message is blocked. It is not tried again but kept for an operator, and later messages with its key
   * wait behind it.
   */
  readonly blocked?: boolean;
}

/**
 * Gives one relay exclusive access to partitions of a destination. The relay engine reads only from feeds. Built-in
 * stores have their own feeds. For a plain `Store`, `listStoreFeed` creates a feed.
 *
 * The relay follows these rules:
 *
 * - It can call `read` at any time, even while a call to `retries` or `settle` is in progress.
 * - It settles the pages from `read` in the order in which they were read. If several of them are ready, it settles
 *   them at the same time.
 * - It settles a page from `retries` before it calls `retries` again.
 * - Neither a call to `retries` nor the settlement of its page overlaps another `settle` call.
 *
 * If any call rejects, the relay closes the feed and opens another one, which starts after the last settled page.
 */
export interface Feed {
  /**
   * Aborts, with the reason, as soon as this relay must stop publishing. Read this property again before each request:
   * in a process that was frozen, reading it reveals the loss of the lease before any timer has run.
   */
  readonly lost: AbortSignal;
  /** The partitions that the feed currently holds. */
  readonly partitions: readonly number[];
  /** Whether relays have started or stopped, so that this relay must call `rebalance`. */
  readonly unbalanced: boolean;
  /**
   * Releases partitions if this relay has more than its even share, or takes free partitions if it has fewer. The relay
   * calls this method only while no page is being published or settled. Messages that were read but not settled are
   * read again, by whichever relay then holds their partition.
   */
  rebalance(options?: StoreCallOptions): Promise<void>;
  /** Whether messages with this key are parked. If so, later messages with this key must also be parked. */
  isParked(key: string): boolean;
  /**
   * How many of a topic's messages are waiting for another attempt. `undefined` stands for messages without a topic.
   */
  waiting(topic: string | undefined): number;
  /** Reads the next new messages. Resolves to an empty page if there are none at the moment. */
  read(options?: StoreCallOptions): Promise<Page>;
  /** Reads parked messages that are due, and the messages behind them. Messages with the same key are in order. */
  retries(options?: StoreCallOptions): Promise<Page>;
  /**
   * Settles a whole page durably. The store parks the messages as `toPark` says, and records all other messages in the
   * page as published. As soon as this method is called, `isParked` must return true for the keys of the parked
   * messages.
   */
  settle(page: Page, toPark: readonly ToPark[], options?: StoreCallOptions): Promise<void>;
  /**
   * Resolves when there may be work. It takes at most `ms` milliseconds, or `interval` if this feed is sure to be
   * notified of every stored message. Never rejects.
   */
  idle(ms: number, options?: IdleOptions): Promise<void>;
  /** Releases the lease. The next feed reads unsettled pages again. */
  close(options?: CloseOptions): Promise<void>;
}

import type { Message } from './message.js';
import type { StoreCallOptions } from './call-options.js';

/** The destination for a relay or a call that names none. */
export const DEFAULT_DESTINATION = 'default';

/** The options with which a relay opens a feed. */
export interface FeedOptions extends StoreCallOptions {
  /** The destination whose cursors, parked messages and leases the feed uses. */
  readonly destination: string;
  /** How many messages the relay publishes together. The store can use this number to decide how far it reads ahead. */
  readonly pageSize: number;
  /**
   * The name by which the other relays of the destination know this relay. The name is random, and stays the same each
   * time the relay opens a feed. From the first call on, the other relays make room for this relay, even while no
   * partition is free for it. A caller without a name does not stay. It takes free partitions, and no relay makes room
   * for it. Two relays with the same name count as one. They share the partitions of one relay, and nothing is lost.
   */
  readonly relay?: string | undefined;
  /** Receives errors that do not end the feed. */
  readonly tell?: ((error: Error) => void) | undefined;
}

/** The options for `idle`, which a relay calls when it has nothing to do. */
export interface IdleOptions extends StoreCallOptions {
  /**
   * How many milliseconds `idle` can take at most if the feed will certainly learn of every stored message.
   * @default the `ms` of the call
   */
  readonly interval?: number | undefined;
}

/** The options with which a relay closes a feed. */
export interface CloseOptions {
  /** Whether the relay opens another feed at once. If so, the other relays do not treat it as gone. @default false */
  readonly stays?: boolean | undefined;
}

/** Messages that are published and settled together, in their order. */
export interface Page {
  readonly messages: readonly Message[];
  /** How often each message has failed so far, one number for each message. Absent if no message has failed. */
  readonly attempts?: readonly number[];
  /**
   * Messages of the page that cannot be handed to a publisher, each with the reason. When such a message has its turn,
   * the relay gives it up, like a message that a broker refuses.
   */
  readonly unreadable?: ReadonlyMap<Message, Error> | undefined;
}

/** A message of a page that was not acknowledged, and how the store must park it. */
export interface ToPark {
  readonly message: Message;
  /** How often the message has failed so far, including this attempt. */
  readonly attempts: number;
  /** Why the attempt failed; absent if the message only waits behind an earlier message of its key. */
  readonly error?: Error;
  /**
   * Milliseconds until the next attempt. Absent if the message waits behind an earlier one, or if the time of its next
   * attempt does not change.
   */
  readonly retryIn?: number;
  /** Whether the message is a dead letter: it is kept for an operator and never tried again, and its key goes on. */
  readonly dead: boolean;
  /**
   * Whether the publisher has not answered the call for this message yet. Until the message is settled again, `retries`
   * returns neither the message nor the messages behind it. That settlement is for a page that consists only of such
   * messages. The next feed returns them anyway, at the latest after `retryIn`.
   */
  readonly outstanding?: boolean;
  /** Whether the message is blocked: it is never tried again either, but its key waits behind it for an operator. */
  readonly blocked?: boolean;
}

/**
 * One relay's hold on partitions of a destination. The relay engine reads only from feeds. Built-in stores have their
 * own feeds. `listStoreFeed` makes a feed from a plain `Store`.
 *
 * The relay can call `read` at any time, even while `retries` or `settle` is under way. It settles the pages from
 * `read` in the order in which they were read. If several of them were published meanwhile, it settles them together.
 * It settles a page from `retries` before it asks for the next one. Neither `retries` nor the settlement of its page
 * overlaps another `settle`. Any rejection ends the feed. The relay then closes the feed and opens another one, which
 * starts after the last settled page.
 */
export interface Feed {
  /**
   * Aborts, with the reason, as soon as this relay must not publish any more. Read this property again before each
   * request. In a process that was frozen, the property shows the loss before any timer has run.
   */
  readonly lost: AbortSignal;
  /** The partitions that the feed holds now. */
  readonly partitions: readonly number[];
  /** Whether relays have come or gone, so that the relay must call `rebalance`. */
  readonly unbalanced: boolean;
  /**
   * Gives away the partitions beyond this relay's even share, and takes free partitions that the relay lacks. The relay
   * calls this only while no page is being published or settled. Messages that are not settled are read again, by the
   * relay that then holds their partition.
   */
  rebalance(options?: StoreCallOptions): Promise<void>;
  /** Whether messages of this key are parked. If so, later messages of the key must be parked too. */
  isParked(key: string): boolean;
  /** How many messages of this topic (`undefined`: messages without a topic) wait to be tried again. */
  waiting(topic: string | undefined): number;
  /** Reads the next new messages. Resolves to an empty page if there are no messages now. */
  read(options?: StoreCallOptions): Promise<Page>;
  /** Reads parked messages that are due, with the messages behind them, in order for each key. */
  retries(options?: StoreCallOptions): Promise<Page>;
  /**
   * Settles a whole page together and durably. The store parks the messages in `toPark` as they say, and records all
   * other messages of the page as published. From the moment of the call, `isParked` is true for the keys of parked
   * messages.
   */
  settle(page: Page, toPark: readonly ToPark[], options?: StoreCallOptions): Promise<void>;
  /**
   * Resolves when there may be work. It takes at most `ms` milliseconds, or `interval` if this feed will certainly
   * learn of every stored message. Never rejects.
   */
  idle(ms: number, options?: IdleOptions): Promise<void>;
  /** Gives the lease back. The next feed reads unsettled pages again. */
  close(options?: CloseOptions): Promise<void>;
}

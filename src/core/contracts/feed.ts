import type { Message } from './message.js';
import type { StoreCallOptions } from './call-options.js';

/** The destination of whoever names none. */
export const DEFAULT_DESTINATION = 'default';

/** What a relay says when it opens a feed. */
export interface FeedOptions extends StoreCallOptions {
  /** The named destination whose cursors, failures and lease are meant. */
  readonly destination: string;
  /** How many messages the relay hands over at once, so that the store can read ahead well. */
  readonly pageSize: number;
  /**
   * What this relay is known by to the others of its destination: random, and the same whenever it opens
   * a feed. From the first call on, others make room for it, also while there is nothing for it yet.
   * Without it the caller does not stay: it takes what is free, and nobody makes room. Two of one name count as one:
   * they share what is one's, and nothing is lost by it.
   */
  readonly relay?: string | undefined;
  /** Told of what has gone wrong and ends nothing. */
  readonly tell?: ((error: Error) => void) | undefined;
}

/** What a relay with nothing to do says. */
export interface IdleOptions extends StoreCallOptions {
  /** How long it may sleep at most, in milliseconds. @default as long as it is to sleep */
  readonly interval?: number | undefined;
}

/** What a relay says when it closes a feed. */
export interface CloseOptions {
  /** It opens another one at once: the others need not think that it is gone. @default false */
  readonly stays?: boolean | undefined;
}

/** Messages that are published and settled together, in their order. */
export interface Page {
  readonly messages: readonly Message[];
  /** Failed attempts so far, one per message; absent when none has failed. */
  readonly attempts?: readonly number[];
  /** Messages of it that no publisher can be given, and why: each is given up in its turn, as what a broker refuses. */
  readonly unreadable?: ReadonlyMap<Message, Error> | undefined;
}

/** A message of a page that was not acknowledged, and what is to become of it. */
export interface ToPark {
  readonly message: Message;
  /** Failed attempts so far, this one included. */
  readonly attempts: number;
  /** Why; absent when the message only waits behind an earlier one of its key. */
  readonly error?: Error;
  /** Milliseconds until the next attempt; absent behind an earlier message, and where that stays as it was. */
  readonly retryIn?: number;
  /** A dead letter: kept for an operator, never tried again, and its key goes on. */
  readonly dead: boolean;
  /**
   * Its call has not been answered: `retries` gives neither it nor what is behind it until it has been settled again, in a
   * page of such messages alone. Another feed does, at the latest after `retryIn`.
   */
  readonly outstanding?: boolean;
  /** Never tried again either, but its key waits behind it for an operator. */
  readonly blocked?: boolean;
}

/**
 * One relay's hold on partitions of a destination: the one thing the relay engine reads from. Built-in
 * stores implement it; a plain `Store` is adapted to it by `listStoreFeed`.
 *
 * `read` may be called at any time, also while `retries` or `settle` is under way; its pages are settled in
 * the order in which they were read, several at once where they were published meanwhile. A page of
 * `retries` is settled before the next one is asked for, and neither overlaps another `settle`. Any
 * rejection ends the feed: the relay closes it and opens another, which starts at what was settled.
 */
export interface Feed {
  /**
   * Aborted, with the reason, as soon as this relay must not publish any more. To be asked for anew before
   * each request: a process that was frozen finds out by asking, before any timer of its own has run.
   */
  readonly lost: AbortSignal;
  /** The partitions that it holds now. */
  readonly partitions: readonly number[];
  /** Whether relays have come or gone, so that partitions should change hands. */
  readonly unbalanced: boolean;
  /**
   * Gives away what is more than this relay's even share, and takes what it lacks and is free. Only
   * while nothing that was read is being published or settled: what is not settled is read again, by whoever holds it.
   */
  rebalance(options?: StoreCallOptions): Promise<void>;
  /** Whether messages of this key are parked: then later ones must be, too. */
  isParked(key: string): boolean;
  /** How many messages of this topic (`undefined`: without one) wait to be tried again. */
  waiting(topic: string | undefined): number;
  /** The next new messages; an empty page when there is none now. */
  read(options?: StoreCallOptions): Promise<Page>;
  /** Messages that were parked and are due, with those behind them, in order per key. */
  retries(options?: StoreCallOptions): Promise<Page>;
  /**
   * Settles a page at once and durably: `toPark` as told, and every other message of it as
   * published. Keys are parked from the moment of the call.
   */
  settle(page: Page, toPark: readonly ToPark[], options?: StoreCallOptions): Promise<void>;
  /**
   * Resolves when there may be something to do: at the latest after `ms` milliseconds, or after `interval`
   * where this feed is sure to hear of whatever is stored. Never rejects.
   */
  idle(ms: number, options?: IdleOptions): Promise<void>;
  /** Gives the lease back. Pages that were read and not settled are read again by the next feed. */
  close(options?: CloseOptions): Promise<void>;
}

import type { Message } from './message.js';
import type { StoreCallOptions } from './call.js';

/** What a relay says when it opens a feed. */
export interface FeedOptions extends StoreCallOptions {
  /** The named destination whose cursors, failures and lease are meant. */
  readonly destination: string;
  /** How many messages the relay hands over at once, so that the store can read ahead well. */
  readonly pageSize: number;
}

/** Messages that are published and settled together, in their order. */
export interface Page {
  readonly messages: readonly Message[];
  /** Failed attempts so far, one per message; absent when none has failed. */
  readonly attempts?: readonly number[];
}

/** A message of a page that was not acknowledged, and what is to become of it. */
export interface SetAside {
  readonly message: Message;
  /** Failed attempts so far, this one included. */
  readonly attempts: number;
  /** Why; absent when the message only waits behind an earlier one of its key. */
  readonly error?: Error;
  /** Milliseconds until the next attempt; absent behind an earlier message. */
  readonly retryIn?: number;
  /** A dead letter: kept for an operator, never tried again, and its key goes on. */
  readonly dead: boolean;
}

/**
 * One relay's hold on a destination of a store: the one thing the relay engine reads from. Built-in
 * stores implement it; a plain `Store` is adapted to it by `plainFeed`.
 *
 * `read` may be called while earlier pages are still unsettled; pages must be settled in the order
 * in which they were read. Any rejection ends the feed: the relay closes it and opens another, which
 * starts at what was settled.
 */
export interface Feed {
  /** Aborted, with the reason, as soon as this relay must not publish any more. */
  readonly lost: AbortSignal;
  /** Whether messages of this key were set aside: then later ones must be, too. */
  isSetAside(key: string): boolean;
  /** The next new messages; an empty page when there is none now. */
  read(options?: StoreCallOptions): Promise<Page>;
  /** Messages that were set aside and are due, with those behind them, in order per key. */
  retries(options?: StoreCallOptions): Promise<Page>;
  /**
   * Settles a page at once and durably: `setAside` as told, and every other message of it as
   * published. Keys set aside are so from the moment of the call.
   */
  settle(page: Page, setAside: readonly SetAside[], options?: StoreCallOptions): Promise<void>;
  /** Gives the lease back. Pages that were read and not settled are read again by the next feed. */
  close(): Promise<void>;
}

import type { StoreCallOptions } from './call-options.js';
import { textOf } from '../util/error-text.js';
import { hasCode, MessengerError } from '../errors.js';
import type { Feed, FeedOptions } from './feed.js';
import type { Message } from './message.js';

/** Why a part of a store was not cleaned. */
export type KeptReason = 'in use' | 'not expired' | 'unfinished';

/** What cleaning has done, as a store that keeps its messages in slices tells it. */
export interface CleanReport {
  /** How many slices were emptied. */
  readonly emptied: number;
  /** Roughly how many messages they had: the sequence numbers that they spanned. */
  readonly rows: number;
  /** How many unfinished messages were moved out of them, to be published from where failures wait. */
  readonly moved: number;
  /** The slices that hold messages and were left, and for which destination where that is the reason. */
  readonly kept: readonly { readonly slice: string; readonly reason: KeptReason; readonly destination?: string }[];
  /** The destinations that were given up just now: what they had not published is cleaned away with the rest. */
  readonly forgotten?: readonly string[];
}

/** Cleaning that failed in part, or was stopped: the `cause` is what failed first, or the abort. Code `CLEANING_FAILED`. */
export class CleaningError extends MessengerError {
  /** What was done all the same. */
  readonly report: CleanReport;

  constructor(report: CleanReport, options: { cause: unknown }) {
    super('CLEANING_FAILED', `not all was cleaned: ${textOf(options.cause)}`, options);
    this.report = report;
  }
}

/**
 * The contract of a datastore, and all that one relay needs: whoever implements these three methods
 * has a working store. The relay never calls two of them at once.
 */
export interface Store {
  /** Up to `batch` unpublished messages, in the order in which they are to be published. */
  messages(batch: number, options?: StoreCallOptions): Promise<readonly Message[]>;
  /** Marks messages as published: all of them, or none if one cannot be. */
  published(...messages: readonly Message[]): Promise<void>;
  /** Deletes messages that are published and older than `expiration`, in milliseconds. Resolves to nothing, or to a `CleanReport`; may reject with a `CleaningError`. */
  deletePublishedByExpiration(expiration: number, options?: StoreCallOptions): Promise<unknown>;
  /** The longest `expiration` that it can clean by, in milliseconds. Absent where there is no limit. */
  retention?(options?: StoreCallOptions): Promise<number>;
}

/** A store that relays can work on without a scan per page: leases, cursors, parked failures. */
export interface FeedStore extends Store {
  /**
   * Takes this relay's share of a destination's partitions and opens its feed, or resolves to `null`
   * while others hold all of them: to be asked again.
   */
  openFeed(options: FeedOptions): Promise<Feed | null>;
}

/** Whether what cleaning resolved to tells what it did. */
export function isCleanReport(value: unknown): value is CleanReport {
  return typeof (value as Partial<CleanReport> | null | undefined)?.emptied === 'number';
}

/** Whether an error tells what cleaning has done before or beside it. */
export function isCleaningError(error: unknown): error is CleaningError {
  return hasCode(error, 'CLEANING_FAILED') && isCleanReport((error as Partial<CleaningError>).report);
}

/** Whether a store offers feeds. */
export function isFeedStore(store: Store): store is FeedStore {
  return typeof (store as Partial<FeedStore>).openFeed === 'function';
}

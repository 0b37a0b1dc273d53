import type { StoreCallOptions } from './call-options.js';
import { textOf } from '../util/error-text.js';
import { hasCode, MessengerError } from '../errors.js';
import type { Feed, FeedOptions } from './feed.js';
import type { Message } from './message.js';

/** Why a part of a store was not cleaned. */
export type KeptReason = 'in use' | 'not expired' | 'unfinished';

/** A report on a cleaning, from a store that keeps its messages in slices. */
export interface CleanReport {
  /** How many slices were emptied. */
  readonly emptied: number;
  /** Roughly how many messages were in the emptied slices: the number of sequence numbers that the slices spanned. */
  readonly rows: number;
  /**
   * How many unfinished messages were moved out of the emptied slices and parked. They are published like other parked
   * messages.
   */
  readonly moved: number;
  /**
   * The slices that contain messages but were not emptied, each with the reason. If a destination is the reason,
   * `destination` is its name.
   */
  readonly kept: readonly { readonly slice: string; readonly reason: KeptReason; readonly destination?: string }[];
  /**
   * The destinations that were forgotten during this cleaning. Their unpublished messages are cleaned like all others.
   */
  readonly forgotten?: readonly string[];
}

/**
 * A cleaning partly failed, or was stopped. The `cause` is the first error, or the abort reason. Code
 * `CLEANING_FAILED`.
 */
export class CleaningError extends MessengerError {
  /** The report on the part of the cleaning that succeeded. */
  readonly report: CleanReport;

  constructor(report: CleanReport, options: { cause: unknown }) {
    super('CLEANING_FAILED', `cleaning did not finish: ${textOf(options.cause)}`, options);
    this.report = report;
  }
}

/**
 * The contract for a datastore. A single relay needs only the three required methods, so a class that implements them
 * is a working store. The relay never calls two of them at once.
 */
export interface Store {
  /** Returns up to `batch` unpublished messages, in the order in which the relay must publish them. */
  messages(batch: number, options?: StoreCallOptions): Promise<readonly Message[]>;
  /** Marks messages as published. If one of them cannot be marked, none of them are. */
  published(...messages: readonly Message[]): Promise<void>;
  /**
   * Deletes messages that are published and older than `expiration` milliseconds. Resolves to nothing, or to a
   * `CleanReport`. Can reject with a `CleaningError`.
   */
  deletePublishedByExpiration(expiration: number, options?: StoreCallOptions): Promise<unknown>;
  /** Returns the longest `expiration` that the store supports, in milliseconds. Absent if the store has no limit. */
  retention?(options?: StoreCallOptions): Promise<number>;
}

/** A store with leases, cursors and parked messages, so that relays do not have to scan the messages for every page. */
export interface FeedStore extends Store {
  /**
   * Takes this relay's share of a destination's partitions, and opens a feed for them. Resolves to `null` while other
   * relays hold all of the partitions. The relay then tries again later.
   */
  openFeed(options: FeedOptions): Promise<Feed | null>;
}

/** Whether the result of a cleaning is a `CleanReport`. */
export function isCleanReport(value: unknown): value is CleanReport {
  return typeof (value as Partial<CleanReport> | null | undefined)?.emptied === 'number';
}

/** Whether an error is a `CleaningError`, with a report on the part of the cleaning that succeeded. */
export function isCleaningError(error: unknown): error is CleaningError {
  return hasCode(error, 'CLEANING_FAILED') && isCleanReport((error as Partial<CleaningError>).report);
}

/** Whether a store offers feeds. */
export function isFeedStore(store: Store): store is FeedStore {
  return typeof (store as Partial<FeedStore>).openFeed === 'function';
}

import type { Page, ToPark } from '../../../core/contracts/feed.js';
import type { Message } from '../../../core/contracts/message.js';
import type { StoredMessage } from '../sql/stored-message.js';
import type { ToParkOrDelay } from './parked.js';
import type { LogPage, Position } from './reader.js';

/** A page from the log or from the side table. The two kinds are settled differently. */
export interface PostgresPage extends Page {
  readonly messages: readonly StoredMessage[];
  /** Absent for messages from the side table, and for an empty page. */
  readonly log?: LogPage;
  /** Messages that were read with the page, but are not due or cannot be read. Settling the page parks them. */
  readonly delayed?: readonly ToParkOrDelay[];
}

export const NOTHING: PostgresPage = { messages: [] };

/** Returns the cursor position once the first `count` messages of a page (by default all) are settled. */
export function settledBy(log: LogPage, count?: number): Position {
  return { partitions: log.partitions, cursor: log.cursor(count) };
}

/**
 * Returns how many messages from the log are settled together with the first `count` messages that were handed out. If
 * `count` includes every message that was handed out, the whole page is settled.
 */
export function rowsUpTo({ messages, log }: PostgresPage, count: number): number {
  const last = messages[count - 1];
  if (last === undefined || log === undefined) return 0;
  return count === messages.length ? log.messages.length : log.messages.indexOf(last) + 1;
}

/** Turns a message that cannot be read into a dead letter. */
export function givenUp(message: Message, error: Error, attempts: number): ToPark {
  return { message, attempts: attempts + 1, error, dead: true };
}

import type { Page, ToPark } from '../../../core/contracts/feed.js';
import type { Message } from '../../../core/contracts/message.js';
import type { StoredMessage } from '../sql/stored-message.js';
import type { ToParkOrDelay } from './parked.js';
import type { LogPage, Position } from './reader.js';

/** A page of the log or of the side table. Its kind decides how it is settled. */
export interface PostgresPage extends Page {
  readonly messages: readonly StoredMessage[];
  /** Absent for messages of the side table, and if nothing was read. */
  readonly log?: LogPage;
  /**
   * Messages that were read with the page and are parked with it instead of published, because they are not due or
   * cannot be read.
   */
  readonly delayed?: readonly ToParkOrDelay[];
}

export const NOTHING: PostgresPage = { messages: [] };

/** Where the log stands once the first `count` messages of a page (by default all) are settled. */
export function settledBy(log: LogPage, count?: number): Position {
  return { partitions: log.partitions, cursor: log.cursor(count) };
}

/**
 * How many messages of the log are settled with the first `count` messages that were handed out. All of them, if all
 * were handed out.
 */
export function rowsUpTo({ messages, log }: PostgresPage, count: number): number {
  const last = messages[count - 1];
  if (last === undefined || log === undefined) return 0;
  return count === messages.length ? log.messages.length : log.messages.indexOf(last) + 1;
}

/** A message that cannot be read, as a dead letter. */
export function givenUp(message: Message, error: Error, attempts: number): ToPark {
  return { message, attempts: attempts + 1, error, dead: true };
}

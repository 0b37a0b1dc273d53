import { MessengerError, toError } from '../../core/errors.js';
import { advanced, closed, opened, type Cursor } from './cursor.js';
import { preamble, type Database, type Row } from './database.js';
import { READ_SETTINGS, type Statements } from './statements.js';
import { sizeOf, StoredMessage } from './rows.js';

/** Messages as they were read together, and the cursor that says that each was delivered. */
export interface LogPage {
  readonly messages: readonly StoredMessage[];
  /** The cursor once the first `count` of them, all by default, are delivered. */
  cursor(count?: number): Cursor;
}

export interface ReaderOptions {
  readonly pageSize: number;
  /** Milliseconds for each statement. */
  readonly timeout: number;
  /** The `high` of the last settlement that was acknowledged. Asked for before each window is opened. */
  readonly acknowledgedHigh: () => number;
}

/**
 * How many rows, and roughly how many bytes, one statement reads ahead. Small pages are cut from larger
 * reads: per statement a poll costs its round trips and eight index scans, whatever it returns. Twice
 * that is held at most: what is in hand, and what is being read.
 */
const READ_AHEAD_ROWS = 4_000;
const READ_AHEAD_BYTES = 4 * 1024 * 1024;

/** Reads the log from a cursor on, ahead of what is settled. */
export class Reader {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ReaderOptions;
  #cursor: Cursor;
  #pages: LogPage[] = [];
  #ahead: Promise<void> | undefined;
  #failure: Error | undefined;
  #averageSize: number | undefined;

  constructor(database: Database, statements: Statements, cursor: Cursor, options: ReaderOptions) {
    this.#database = database;
    this.#statements = statements;
    this.#cursor = cursor;
    this.#options = options;
  }

  /** The next page: what was read ahead, or what one statement finds now. */
  async next(signal?: AbortSignal): Promise<LogPage> {
    if (this.#pages.length === 0) await this.#ahead;
    if (this.#failure !== undefined) throw this.#failure;
    // Also where reading ahead found the window at its end: what came since is in the next one.
    if (this.#pages.length === 0) await this.#read(signal);
    const page = this.#pages.shift();
    // Ahead only inside a window, what comes after it may not have been written yet; and as soon as less
    // than one read is in hand, so that the server reads while this process publishes.
    if (page && this.#cursor.to !== null && this.#pages.length * this.#options.pageSize < this.#limit())
      this.#readAhead();
    return page ?? this.#emptyPage();
  }

  #readAhead(): void {
    this.#ahead ??= this.#read(undefined)
      .catch((error: unknown) => {
        // Told by the next call, even while pages are left: after any connection error a relay forgets
        // what it has in memory, since a server that crashed hands transaction ids out again.
        this.#failure = toError(error);
      })
      .finally(() => {
        this.#ahead = undefined;
      });
  }

  #emptyPage(): LogPage {
    const cursor = this.#cursor;
    return { messages: [], cursor: () => cursor };
  }

  async #read(signal: AbortSignal | undefined): Promise<void> {
    const { pageSize, timeout, acknowledgedHigh } = this.#options;
    const limit = this.#limit();
    const before = this.#cursor;
    // Before the statement is sent, and not after: that is what makes it a safe `low`.
    const high = acknowledgedHigh();
    const rows = await this.#database.transaction(
      preamble(timeout, ...READ_SETTINGS),
      (connection) =>
        connection.query(this.#statements.read, [before.from, before.to, before.after, before.low, limit]),
      { timeout, signal },
    );
    const { until, messages } = decodePage(rows);
    const window = before.to === null ? opened(before, until, high) : before;
    const isLast = messages.length < limit;
    this.#cursor = this.#cut(window, messages, pageSize, isLast);
  }

  /** Cuts what was read into pages, and returns the cursor behind the last. */
  #cut(window: Cursor, messages: readonly StoredMessage[], pageSize: number, isLast: boolean): Cursor {
    let at = window;
    for (let start = 0; start < messages.length; start += pageSize) {
      const base = at;
      const page = messages.slice(start, start + pageSize);
      const ends = isLast && start + pageSize >= messages.length;
      const cursor = (count = page.length): Cursor => {
        const last = page[count - 1];
        const moved = last ? advanced(base, last.seq) : base;
        return ends && count === page.length ? closed(moved) : moved;
      };
      this.#pages.push({ messages: page, cursor });
      at = cursor();
    }
    this.#measure(messages);
    return isLast ? closed(at) : at;
  }

  #limit(): number {
    const { pageSize } = this.#options;
    const fits = Math.floor(READ_AHEAD_BYTES / (this.#averageSize ?? READ_AHEAD_BYTES));
    return Math.max(pageSize, Math.min(READ_AHEAD_ROWS, fits));
  }

  #measure(messages: readonly StoredMessage[]): void {
    if (messages.length === 0) return;
    this.#averageSize = messages.reduce((sum, message) => sum + sizeOf(message), 0) / messages.length;
  }
}

function decodePage(rows: readonly Row[]): { until: string; messages: StoredMessage[] } {
  let until: string | undefined;
  let standby = false;
  const messages: StoredMessage[] = [];
  let last = 0;
  let sorted = true;
  for (const row of rows) {
    if (row[0] === '0') {
      until = row[1] as string;
      standby = row[2] === 'true';
      continue;
    }
    const message = new StoredMessage(row);
    sorted &&= message.seq > last;
    last = message.seq;
    messages.push(message);
  }
  if (until === undefined) throw new Error('the page has no head row');
  if (standby) {
    throw new MessengerError(
      'UNSUPPORTED',
      'this server is a standby: its snapshots omit running transactions, and messages would be lost. Connect the relay to the primary',
    );
  }
  // An outer ORDER BY is not kept through a UNION by any promise of SQL.
  if (!sorted) messages.sort((a, b) => a.seq - b.seq);
  return { until, messages };
}

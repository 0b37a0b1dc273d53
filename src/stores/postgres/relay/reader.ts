import { toError } from '../../../core/errors.js';
import { arrayText } from '../sql/statement.js';
import { decodePage, type DecodedPage } from './decode-page.js';
import { advanced, closed, joined, opened, type Cursor } from './cursor.js';
import { preamble, type Database } from '../sql/database.js';
import { sizeOf, type StoredMessage } from '../sql/stored-message.js';
import { READ_SETTINGS } from './log-statements.js';
import type { Statements } from './statements.js';

/** Partitions that are read together because they have the same cursor. */
export interface Position {
  readonly partitions: readonly number[];
  readonly cursor: Cursor;
}

/** Messages that were read together, and the cursor after they are delivered. */
export interface LogPage {
  readonly messages: readonly StoredMessage[];
  /** The partitions to which the messages belong. */
  readonly partitions: readonly number[];
  /** Returns the cursor once the first `count` messages (by default all) are delivered. */
  cursor(count?: number): Cursor;
}

export interface ReaderOptions {
  readonly pageSize: number;
  /** How many partitions the store has. */
  readonly partitions: number;
  /** The destination for which messages are read. */
  readonly destination: string;
  /** The topics to read. They limit only messages that are not addressed to a destination. `null` means all topics. */
  readonly topics: readonly string[] | null;
  /** The oid of the log's sequence. */
  readonly sequence: string;
  /** Messages with greater sequence numbers were stored after the size limits took effect. */
  readonly limitedAfter: number;
  /** The time limit for each statement, in milliseconds. */
  readonly timeout: number;
  /** Returns the `high` from the last acknowledged settlement. Called before each window is opened. */
  readonly acknowledgedHigh: () => number;
}

/**
 * How many rows (or a page, if that is more) and roughly how many bytes one statement reads ahead. Each statement costs
 * its round trips and eight index scans, even if it returns nothing. So the reader cuts small pages from large reads.
 * It can keep twice this amount in memory: the rest of one read, and the next read. If messages have suddenly become
 * larger, it can keep `LARGE` times that amount.
 */
const READ_AHEAD_ROWS = 4_000;
const READ_AHEAD_BYTES = 4 * 1024 * 1024;

/** Room for ids and other small fields, so that four payloads of a MiB are always read together. */
const LEEWAY = 64 * 1024;

/**
 * Sizes are estimated from the last read. At first, a payload is left out if it is this many times larger than an equal
 * share of the bytes that one statement reads. Once the sizes are known, the reader reads as many payloads as fit.
 */
const LARGE = 4;

/** The place at which reading continues, for partitions that share one cursor. */
interface Place {
  readonly partitions: readonly number[];
  /** The partitions as a statement parameter: null for all partitions. */
  readonly share: string | null;
  cursor: Cursor;
  /** The last number that the sequence had assigned when the window was opened, or 0 if that is unknown. */
  passed: number;
}

/** The common end of a window. When all places have been read to this end, they share one cursor. */
interface Meeting {
  readonly to: string;
  readonly passed: number;
  readonly acknowledgedHigh: number;
  /** The places that have not been read to the end yet. */
  readonly missing: Set<Place>;
}

/**
 * Reads the log, starting at the cursors, ahead of the settled messages. One statement reads all partitions with equal
 * cursors. To join partitions with different cursors, the reader gives all of them a window that ends at the same
 * snapshot, and reads each to the end of that window.
 */
export class Reader {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ReaderOptions;
  /** The settings for each statement. */
  readonly #preamble: string;
  #places: Place[];
  #meeting: Meeting | undefined;
  /** If there are several places, the index of the place that is read next. */
  #turn = 0;
  #pages: LogPage[] = [];
  #ahead: Promise<void> | undefined;
  #failure: Error | undefined;
  #averageSize: number | undefined;

  constructor(database: Database, statements: Statements, positions: readonly Position[], options: ReaderOptions) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#preamble = preamble(options.timeout, ...READ_SETTINGS);
    this.#places = positions.map(({ partitions, cursor }) => ({
      partitions,
      share: this.#shareOf(partitions),
      cursor,
      passed: 0,
    }));
  }

  /** Where reading continues. Once all pages are settled, every message that was read is before these positions. */
  get positions(): readonly Position[] {
    return this.#places;
  }

  /** Whether the last read reached the end of the log. Newer messages are in windows that are not open yet. */
  get isAtEnd(): boolean {
    return this.#pages.length === 0 && this.#places.every(({ cursor }) => cursor.to === null);
  }

  /** Returns the next page, which was read ahead or is read now. Returns `null` if there are no more messages. */
  async next(signal?: AbortSignal): Promise<LogPage | null> {
    if (this.#pages.length === 0) await this.#ahead;
    if (this.#failure !== undefined) throw this.#failure;
    // At the end of an open window, newer messages are in the next window. So there are no more messages only when each
    // place has opened a window and found it empty.
    const empty = new Set<Place>();
    while (this.#pages.length === 0 && !this.#places.every((place) => empty.has(place))) {
      const opened = await this.#read(signal);
      if (opened) empty.add(opened);
    }
    const page = this.#pages.shift() ?? null;
    // Read ahead only inside a window, because messages after the window may not be written yet. Start when less than
    // one full read is left, so that the server reads while this process publishes.
    const isInWindow = typeof this.#places[this.#turn]?.cursor.to === 'string';
    if (page && isInWindow && this.#pages.length * this.#options.pageSize < this.#limit()) this.#readAhead();
    return page;
  }

  #readAhead(): void {
    this.#ahead ??= this.#read(undefined)
      .then(() => undefined)
      .catch((error: unknown) => {
        // The next call throws the error, even if pages are left. After any connection error, a relay discards its
        // state in memory, because a server that has crashed assigns some transaction ids again.
        this.#failure = toError(error);
      })
      .finally(() => {
        this.#ahead = undefined;
      });
  }

  /**
   * Continues reading at the place whose turn it is. If the read opened a window for that place, resolves to the place.
   */
  async #read(signal: AbortSignal | undefined): Promise<Place | undefined> {
    const place = this.#places[this.#turn];
    if (place === undefined) return undefined;
    const { pageSize, acknowledgedHigh } = this.#options;
    const limit = this.#limit();
    const meeting = this.#meeting;
    const before = place.cursor.to === null && meeting?.missing.has(place) ? this.#open(place, meeting) : place.cursor;
    // Get this number before the statement is sent. Otherwise it would not be a safe `low`.
    const high = acknowledgedHigh();
    const largest = Math.ceil((LARGE * READ_AHEAD_BYTES) / limit);
    const { until, passed, messages, left } = await this.#query(place, before, limit, largest, signal);
    const window = before.to === null ? opened(before, until, high) : before;
    if (before.to === null) place.passed = passed;
    const fits = left.length > 0 ? fitting(messages, left) : 0;
    if (fits > 0) {
      const last = messages.at(-1);
      const rest = await this.#query(place, last ? advanced(window, last.seq) : window, fits, null, signal);
      messages.push(...rest.messages);
    }
    const isLast = left.length === fits && messages.length < limit;
    this.#cut(place, window, messages, pageSize, isLast);
    if (before.to === null) this.#meet(place, { to: until, passed, acknowledgedHigh: high });
    if (isLast) this.#arrived(place);
    // Places take turns, so that a place with many messages does not delay the others.
    this.#turn = (this.#turn + 1) % this.#places.length;
    return before.to === null ? place : undefined;
  }

  /** Reads up to `limit` messages after a cursor, but stops at a payload that is larger than `largest`. */
  async #query(
    { share }: Place,
    { from, to, after, low }: Cursor,
    limit: number,
    largest: number | null,
    signal: AbortSignal | undefined,
  ): Promise<DecodedPage> {
    const { partitions, destination, topics, sequence, limitedAfter, timeout } = this.#options;
    const values = [
      ...[from, to, after, low, limit],
      ...[share, partitions, topics && arrayText(topics), largest, destination, sequence],
    ];
    const hasLate = sawRunning(from);
    // Messages that were committed late can have any sequence number. If `from` lists running transactions, the first
    // read of a new window can therefore return messages from before the size limits, if any exist.
    const isLimited = (hasLate ? after : Math.max(low, after)) >= limitedAfter;
    const { read: limited, readNew, readAny, readAnyNew } = this.#statements;
    const [withLate, onlyNew] = isLimited ? [limited, readNew] : [readAny, readAnyNew];
    const read = hasLate ? withLate : onlyNew;
    const bounds = { timeout, signal };
    // Except for the first, a read that opens a window returns few rows. A read inside a window returns as many rows as
    // its limit allows.
    const rows =
      to === null
        ? await this.#database.once(this.#preamble, read, values, bounds)
        : await this.#database.transaction(this.#preamble, (connection) => connection.query(read, values), bounds);
    return decodePage(rows);
  }

  /**
   * Opens a window that ends where another place's window ends. This is safe, because that snapshot was taken after all
   * places were claimed.
   */
  #open(place: Place, { to, passed, acknowledgedHigh }: Meeting): Cursor {
    place.passed = passed;
    return opened(place.cursor, to, acknowledgedHigh);
  }

  /**
   * If all other places are between windows, their next windows will end where the window that this place has just
   * opened ends. Otherwise the place continues alone, because its many messages must not delay the others.
   */
  #meet(place: Place, end: Omit<Meeting, 'missing'>): void {
    const others = this.#places.filter((each) => each !== place);
    const canMeet = others.length > 0 && others.every(({ cursor }) => cursor.to === null);
    this.#meeting = canMeet ? { ...end, missing: new Set(this.#places) } : undefined;
  }

  /** Call this when a place has been read to the end of its window. After the last one, the places become one. */
  #arrived(place: Place): void {
    const meeting = this.#meeting;
    if (place.cursor.from !== meeting?.to) return;
    meeting.missing.delete(place);
    if (meeting.missing.size > 0) return;
    const partitions = this.#places.flatMap((each) => each.partitions);
    const cursor = joined(this.#places.map((each) => each.cursor));
    this.#places = [{ partitions, share: this.#shareOf(partitions), cursor, passed: 0 }];
    this.#meeting = undefined;
    this.#turn = 0;
  }

  /** Cuts the messages into pages, and moves the place's cursor past the last page. */
  #cut(place: Place, window: Cursor, messages: readonly StoredMessage[], pageSize: number, isLast: boolean): void {
    const { partitions, passed } = place;
    let at = window;
    for (let start = 0; start < messages.length; start += pageSize) {
      const base = at;
      const page = messages.slice(start, start + pageSize);
      const ends = isLast && start + pageSize >= messages.length;
      const cursor = (count = page.length): Cursor => {
        const last = page[count - 1];
        const moved = last ? advanced(base, last.seq) : base;
        return ends && count === page.length ? closed(moved, passed) : moved;
      };
      this.#pages.push({ messages: page, partitions, cursor });
      at = cursor();
    }
    this.#measure(messages);
    place.cursor = isLast ? closed(at, passed) : at;
  }

  #shareOf(partitions: readonly number[]): string | null {
    return partitions.length === this.#options.partitions ? null : arrayText(partitions);
  }

  #limit(): number {
    const { pageSize } = this.#options;
    if (this.#averageSize === undefined) return pageSize;
    const fits = Math.floor(READ_AHEAD_BYTES / this.#averageSize);
    return Math.max(1, Math.min(Math.max(pageSize, READ_AHEAD_ROWS), fits));
  }

  #measure(messages: readonly StoredMessage[]): void {
    if (messages.length === 0) return;
    this.#averageSize = messages.reduce((sum, message) => sum + sizeOf(message), 0) / messages.length;
  }
}

/** Whether a snapshot, `xmin:xmax:xip,…`, lists a running transaction. */
function sawRunning(snapshot: string): boolean {
  return !snapshot.endsWith(':');
}

/**
 * Returns how many of the left-out messages, with the sizes in `left`, fit in memory next to the messages that were
 * read. If nothing was read, it returns at least one.
 */
function fitting(read: readonly StoredMessage[], left: readonly number[]): number {
  let bytes = read.reduce((sum, message) => sum + sizeOf(message), 0);
  const end = left.findIndex((size) => (bytes += size) > READ_AHEAD_BYTES + LEEWAY);
  return end < 0 ? left.length : Math.max(read.length === 0 ? 1 : 0, end);
}

import { MessengerError } from '../../core/errors.js';
import type { SetAside } from '../../core/feed.js';
import { arrayText, type ClaimOptions } from './claim.js';
import { preamble, type Connection, type Database, type Statement } from './database.js';
import type { Change } from './lease.js';
import { seqOf, StoredMessage } from './rows.js';
import { INDEX_SETTINGS, type Statements } from './statements.js';

/** How much of an error's text is kept with a message. */
const MAX_ERROR_LENGTH = 2_000;

/** What waits: the keys, and how many messages of each topic. */
interface Waiting {
  readonly keys: Set<string>;
  readonly topics: Map<string | null, number>;
}

/** The side table of one destination, as far as some partitions go: what was set aside, and which keys wait in it. */
export class Parked {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  /** As the statements' parameter: null for all partitions. */
  readonly #share: string | null;
  readonly #waiting: Waiting;
  /** Whether anything may be waiting: then, and only then, the table is asked for what is due. */
  #mayWait: boolean;

  private constructor(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    share: string | null,
    waiting: Waiting,
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#share = share;
    this.#waiting = waiting;
    this.#mayWait = waiting.topics.size > 0;
  }

  static async load(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    partitions: readonly number[],
  ): Promise<Parked> {
    const { destination, timeout, signal } = options;
    const share = partitions.length === options.partitions ? null : arrayText(partitions);
    const rows = await database.transaction(
      preamble(timeout),
      (connection) => connection.query(statements.waiting, [destination, share, options.partitions]),
      { timeout, signal },
    );
    const waiting: Waiting = { keys: new Set(), topics: new Map() };
    for (const [key, topic, count] of rows as [string | null, string | null, string][]) {
      if (key !== null) waiting.keys.add(key);
      waiting.topics.set(topic, (waiting.topics.get(topic) ?? 0) + Number(count));
    }
    return new Parked(database, statements, options, share, waiting);
  }

  has(key: string): boolean {
    return this.#waiting.keys.has(key);
  }

  /** How many messages of a topic wait. */
  waiting(topic: string | undefined): number {
    return this.#waiting.topics.get(topic ?? null) ?? 0;
  }

  /** What is due, and what waits behind it, in order. */
  async due(limit: number, signal?: AbortSignal): Promise<{ messages: StoredMessage[]; attempts: number[] }> {
    if (!this.#mayWait) return { messages: [], attempts: [] };
    const { destination, partitions, timeout } = this.#options;
    const rows = await this.#database.transaction(
      preamble(timeout, ...INDEX_SETTINGS),
      async (connection) => {
        const share = [this.#share, partitions];
        const due = await connection.query(this.#statements.due, [destination, limit, ...share]);
        if (due.length === 0) {
          const any = await connection.query(this.#statements.anyWaiting, [destination, ...share]);
          this.#mayWait = any.length > 0;
        }
        return due;
      },
      { timeout, signal },
    );
    return { messages: rows.map((row) => new StoredMessage(row)), attempts: rows.map((row) => Number(row[7])) };
  }

  /** Sets messages of the log aside: their keys from now on, their rows with the settlement. */
  parking(setAside: readonly SetAside[]): Change | undefined {
    if (setAside.length === 0) return undefined;
    for (const { message, dead } of setAside) {
      if (dead) continue;
      this.#mayWait = true;
      if (message.key !== undefined) this.#waiting.keys.add(message.key);
      this.#count(message, 1);
    }
    return async (connection) => {
      await this.#write(connection, this.#statements.park, setAside);
      await this.#promoteHeads(connection, keysOf(setAside.map(({ message }) => message)));
    };
  }

  /** Takes published messages out of the side table, and sets others aside again. */
  unparking(published: readonly StoredMessage[], setAside: readonly SetAside[]): Change {
    for (const message of published) this.#count(message, -1);
    for (const { message, dead } of setAside) if (dead) this.#count(message, -1);
    return async (connection) => {
      const { destination } = this.#options;
      if (published.length > 0) {
        const numbers = `{${published.map(({ seq }) => seq).join(',')}}`;
        const rows = await connection.query(this.#statements.unpark, [destination, numbers]);
        assertAll(rows.length, published.length);
      }
      // One that still waits behind an earlier message of its key stays as it is.
      const changed = setAside.filter(({ dead, blocked, error }) => dead || blocked === true || error !== undefined);
      if (changed.length > 0) await this.#write(connection, this.#statements.parkAgain, changed);
      const touched = keysOf([...published, ...setAside.map(({ message }) => message)]);
      if (touched.length === 0) return;
      await this.#promoteHeads(connection, touched);
      // Forgotten although this transaction may still fail: then the lease is lost, and all of this with it.
      const drained = await connection.query(this.#statements.drainedKeys, [destination, JSON.stringify(touched)]);
      for (const [key] of drained) this.#waiting.keys.delete(key as string);
    };
  }

  async #write(connection: Connection, statement: Statement, setAside: readonly SetAside[]): Promise<void> {
    const records = setAside.map(({ message, attempts, error, retryIn, dead, blocked }) => ({
      seq: seqOf(message),
      attempts,
      error: error && storable(error),
      reason: dead ? 'dead' : blocked === true ? 'blocked' : error ? 'failed' : 'behind',
      retryIn: retryIn ?? (message.key === undefined ? 0 : undefined),
      fate: dead ? 'dead' : blocked === true ? 'blocked' : 'retry',
    }));
    const rows = await connection.query(statement, [this.#options.destination, JSON.stringify(records)]);
    assertAll(rows.length, records.length);
  }

  #count({ topic }: StoredMessage | SetAside['message'], by: number): void {
    const { topics } = this.#waiting;
    topics.set(topic ?? null, (topics.get(topic ?? null) ?? 0) + by);
  }

  async #promoteHeads(connection: Connection, keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    await connection.query(this.#statements.promoteHeads, [this.#options.destination, JSON.stringify(keys)]);
  }
}

function keysOf(messages: readonly { key?: string | undefined }[]): string[] {
  return [...new Set(messages.flatMap(({ key }) => (key === undefined ? [] : [key])))];
}

/** PostgreSQL's text holds no NUL, and JSON no lone surrogate that it would take. */
function storable(error: Error): string {
  return error.message
    .slice(0, MAX_ERROR_LENGTH)
    .replaceAll('\u0000', '')
    .replace(/\p{Surrogate}/gu, '\ufffd');
}

function assertAll(changed: number, expected: number): void {
  if (changed === expected) return;
  throw new MessengerError(
    'UNKNOWN_MESSAGE',
    `${String(expected)} messages were to be settled, ${String(changed)} were found: nothing was changed`,
  );
}

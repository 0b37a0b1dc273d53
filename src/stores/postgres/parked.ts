import { MessengerError } from '../../core/errors.js';
import type { SetAside } from '../../core/feed.js';
import { preamble, type Connection, type Database } from './database.js';
import type { ClaimOptions } from './lease.js';
import { seqOf, StoredMessage } from './rows.js';
import type { Statement } from './database.js';
import { INDEX_SETTINGS, type Statements } from './statements.js';

/** Part of a settlement's transaction. */
type Change = (connection: Connection) => Promise<void>;

/** How much of an error's text is kept with a message. */
const MAX_ERROR_LENGTH = 2_000;

/** The side table of one destination: what was set aside, and which keys wait in it. */
export class Parked {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  readonly #keys: Set<string>;
  /** Whether anything may be waiting: then, and only then, the table is asked for what is due. */
  #waiting: boolean;

  private constructor(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    keys: Set<string>,
    waiting: boolean,
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#keys = keys;
    this.#waiting = waiting;
  }

  static async load(database: Database, statements: Statements, options: ClaimOptions): Promise<Parked> {
    const { destination, timeout, signal } = options;
    const rows = await database.transaction(
      preamble(timeout),
      (connection) => connection.query(statements.waitingKeys, [destination]),
      { timeout, signal },
    );
    const keys = new Set(rows.flatMap(([key]) => (typeof key === 'string' ? [key] : [])));
    return new Parked(database, statements, options, keys, rows.length > 0);
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Whether anything may wait, and come due by and by. */
  get mayWait(): boolean {
    return this.#waiting;
  }

  /** How many messages of a topic wait. */
  waiting(_topic: string | undefined): number {
    return 0;
  }

  /** What is due, and what waits behind it, in order. */
  async due(limit: number, signal?: AbortSignal): Promise<{ messages: StoredMessage[]; attempts: number[] }> {
    if (!this.#waiting) return { messages: [], attempts: [] };
    const { destination, timeout } = this.#options;
    const rows = await this.#database.transaction(
      preamble(timeout, ...INDEX_SETTINGS),
      async (connection) => {
        const due = await connection.query(this.#statements.due, [destination, limit]);
        if (due.length === 0)
          this.#waiting = (await connection.query(this.#statements.anyWaiting, [destination])).length > 0;
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
      if (!dead) this.#waiting = true;
      if (!dead && message.key !== undefined) this.#keys.add(message.key);
    }
    return async (connection) => {
      await this.#write(connection, this.#statements.park, setAside);
      await this.#promoteHeads(connection, keysOf(setAside.map(({ message }) => message)));
    };
  }

  /** Takes published messages out of the side table, and sets others aside again. */
  unparking(published: readonly StoredMessage[], setAside: readonly SetAside[]): Change {
    return async (connection) => {
      const { destination } = this.#options;
      if (published.length > 0) {
        const numbers = `{${published.map(({ seq }) => seq).join(',')}}`;
        const rows = await connection.query(this.#statements.unpark, [destination, numbers]);
        assertAll(rows.length, published.length);
      }
      // One that still waits behind an earlier message of its key stays as it is.
      const changed = setAside.filter(({ dead, error }) => dead || error !== undefined);
      if (changed.length > 0) await this.#write(connection, this.#statements.parkAgain, changed);
      const touched = keysOf([...published, ...setAside.map(({ message }) => message)]);
      if (touched.length === 0) return;
      await this.#promoteHeads(connection, touched);
      // Forgotten although this transaction may still fail: then the lease is lost, and all of this with it.
      const drained = await connection.query(this.#statements.drainedKeys, [destination, JSON.stringify(touched)]);
      for (const [key] of drained) this.#keys.delete(key as string);
    };
  }

  async #write(connection: Connection, statement: Statement, setAside: readonly SetAside[]): Promise<void> {
    const records = setAside.map(({ message, attempts, error, retryIn, dead }) => ({
      seq: seqOf(message),
      attempts,
      error: error && storable(error),
      retryIn: dead ? undefined : (retryIn ?? (message.key === undefined ? 0 : undefined)),
      dead,
    }));
    const rows = await connection.query(statement, [this.#options.destination, JSON.stringify(records)]);
    assertAll(rows.length, records.length);
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

import { MessengerError } from '../../../core/errors.js';
import type { ToPark } from '../../../core/contracts/feed.js';
import type { Message } from '../../../core/contracts/message.js';
import type { ClaimOptions } from './claim.js';
import { arrayText, INDEX_SETTINGS } from '../sql/statement.js';
import { preamble, type Connection, type Database, type Statement } from '../sql/database.js';
import type { Change } from './lease.js';
import { seqOf, StoredMessage, unreadable } from '../sql/stored-message.js';
import { DUE, WAITING } from './parked-statements.js';
import { sourceOf, type Source } from './source.js';
import type { Statements } from './statements.js';
import { storable } from './storable-text.js';

/** A message to move to the side table because the relay parks it, or because it is not due yet. */
export interface ToParkOrDelay extends ToPark {
  readonly delayed?: boolean;
}

/** Whether the message waits alone, so that later messages with the same key do not wait for it. */
export function isAlone({ message, delayed }: ToParkOrDelay): boolean {
  return delayed === true && message.holdKey !== true;
}

/**
 * The keys that have waiting messages, and how many messages wait for each topic. A message that only waits for its
 * `deliverAt` does not count.
 */
interface Waiting {
  /** The value is unique to the last time that a message with the key was parked. */
  readonly keys: Map<string, symbol>;
  readonly topics: Map<string | null, number>;
}

/**
 * What is parked for some partitions of one destination: the messages in the side table, and the keys that have waiting
 * messages.
 */
export class Parked {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  /** The partitions as a statement parameter: null for all partitions. */
  readonly #share: string | null;
  readonly #waiting: Waiting;
  /** Messages that do not count in `waiting`, because they only waited for their `deliverAt`, or wait alone. */
  readonly #uncounted = new WeakSet<Message>();
  /** The sequence numbers of messages for which the publisher has not answered yet. */
  readonly #outstanding = new Set<string>();
  /** Whether any message may be waiting. If none is, the relay does not look for due messages. */
  #mayWait: boolean;
  /** The destination's revision before the keys were read. It changes whenever an operator requeues messages. */
  #revision: string | undefined;
  /** The encoding of the database. */
  readonly #encoding: string;

  private constructor(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    share: string | null,
    { waiting, revision, encoding }: { waiting: Waiting; revision: string | undefined; encoding: string },
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#share = share;
    this.#waiting = waiting;
    this.#mayWait = waiting.topics.size > 0;
    this.#revision = revision;
    this.#encoding = encoding;
  }

  /** Reads, in one transaction, what is waiting in these partitions and what the destination publishes. */
  static async load(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    partitions: readonly number[],
  ): Promise<{ parked: Parked; source: Source }> {
    const { destination, timeout, signal } = options;
    const share = partitions.length === options.partitions ? null : arrayText(partitions);
    const { source, ...found } = await database.transaction(
      preamble(timeout, ...INDEX_SETTINGS),
      async (connection) => ({
        source: await sourceOf(connection, statements, destination),
        ...(await look(connection, statements, options, share)),
      }),
      { timeout, signal },
    );
    const { encoding } = source;
    return { parked: new Parked(database, statements, options, share, { ...found, encoding }), source };
  }

  has(key: string): boolean {
    return this.#waiting.keys.has(key);
  }

  /** Whether any message may be waiting. */
  get mayWait(): boolean {
    return this.#mayWait;
  }

  /**
   * Returns how many messages of a topic are waiting for a retry, or behind an earlier message with the same key. A
   * message that only waits for its `deliverAt` counts once it has failed, but never if it has a key and waits alone.
   */
  waiting(topic: string | undefined): number {
    return this.#waiting.topics.get(topic ?? null) ?? 0;
  }

  /** Returns the due messages, and those that wait behind them, in order. */
  async due(
    limit: number,
    signal?: AbortSignal,
  ): Promise<{ messages: StoredMessage[]; attempts: number[]; unreadable?: ReadonlyMap<Message, Error> | undefined }> {
    const { destination, partitions, timeout } = this.#options;
    const rows = await this.#database.transaction(
      preamble(timeout, ...INDEX_SETTINGS),
      async (connection) => {
        await this.#noticeRequeue(connection);
        if (!this.#mayWait) return [];
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
    const { at } = DUE;
    const due = rows.map((row) => ({
      message: new StoredMessage(row, row[at.tooLarge] as string | null),
      attempts: Number(row[at.attempts]),
      uncounted: row[at.uncounted] === 'true',
    }));
    for (const { message, uncounted } of due) if (uncounted) this.#uncounted.add(message);
    // A message that holds its key is read together with the messages before it. Neither that message nor later ones
    // with the same key can be published now.
    const held = new Set<string>();
    const ready = due.filter(({ message: { key, seq, isDelayed } }) => {
      const mustWait = isDelayed || this.#outstanding.has(String(seq));
      if (mustWait && key !== undefined) held.add(key);
      return !mustWait && (key === undefined || !held.has(key));
    });
    const messages = ready.map(({ message }) => message);
    return { messages, attempts: ready.map(({ attempts }) => attempts), unreadable: unreadable(messages) };
  }

  /**
   * Adds the keys of requeued messages, so that later messages with these keys wait, even if they were read ahead. It
   * removes no key: if a key is not needed, its next message only takes the way through the table. All counts are read
   * again from the table. No settlement is in progress (see `Feed`), so the table has every change that memory has.
   */
  async #noticeRequeue(connection: Connection): Promise<void> {
    const [row] = await connection.query(this.#statements.revision, [this.#options.destination]);
    if ((row?.[0] as string | undefined) === this.#revision) return;
    const { revision, waiting } = await look(connection, this.#statements, this.#options, this.#share);
    for (const [key, mark] of waiting.keys) this.#waiting.keys.set(key, mark);
    this.#waiting.topics.clear();
    for (const [topic, count] of waiting.topics) this.#waiting.topics.set(topic, count);
    this.#mayWait ||= waiting.topics.size > 0;
    this.#revision = revision;
  }

  /** Parks messages from the log. Their keys count as parked at once, and the settlement inserts the rows. */
  parking(toPark: readonly ToParkOrDelay[]): Change | undefined {
    if (toPark.length === 0) return undefined;
    for (const each of toPark) {
      const { message, dead } = each;
      if (each.outstanding === true) this.#outstanding.add(String(seqOf(message)));
      if (dead) continue;
      this.#mayWait = true;
      if (message.key !== undefined && !isAlone(each)) this.#waiting.keys.set(message.key, Symbol());
      if (each.delayed !== true) this.#count(message, 1);
    }
    return async (connection) => {
      await this.#write(connection, this.#statements.park, toPark);
      await this.#promoteHeads(connection, keysOf(toPark.map(({ message }) => message)));
    };
  }

  /**
   * Removes published messages from the side table, and parks others again. Call `committed` after the commit. It
   * forgets the keys that have no waiting messages left. Before the commit, that would be too early: if the commit
   * failed, the messages would still be waiting.
   */
  unparking(published: readonly StoredMessage[], toPark: readonly ToPark[]): { change: Change; committed: () => void } {
    const { keys } = this.#waiting;
    const touched = keysOf([...published, ...toPark.map(({ message }) => message)]);
    const marks = new Map(touched.map((key) => [key, keys.get(key)]));
    let drained: string[] = [];
    for (const message of published) this.#count(message, -1);
    for (const message of [...published, ...toPark.map((each) => each.message)]) {
      this.#outstanding.delete(String(seqOf(message)));
    }
    // A message that still waits behind an earlier message with the same key does not change.
    const changed = toPark.filter(
      ({ dead, blocked, error, retryIn }) => dead || blocked === true || error !== undefined || retryIn !== undefined,
    );
    for (const { message, outstanding } of changed) {
      if (outstanding === true) this.#outstanding.add(String(seqOf(message)));
    }
    for (const { message, dead } of changed) {
      if (dead) this.#count(message, -1);
      else this.#countFailed(message);
    }
    const change: Change = async (connection) => {
      const { destination } = this.#options;
      if (published.length > 0) {
        const numbers = `{${published.map(({ seq }) => seq).join(',')}}`;
        const rows = await connection.query(this.#statements.unpark, [destination, numbers]);
        assertAll(rows.length, published.length);
      }
      if (changed.length > 0) await this.#write(connection, this.#statements.parkAgain, changed);
      if (touched.length === 0) return;
      await this.#promoteHeads(connection, touched);
      const rows = await connection.query(this.#statements.drainedKeys, [destination, JSON.stringify(touched)]);
      drained = rows.map(([key]) => key as string);
    };
    const committed = () => {
      // Keep a key if another of its messages was parked after `unparking` was called.
      for (const key of drained) if (keys.get(key) === marks.get(key)) keys.delete(key);
    };
    return { change, committed };
  }

  async #write(connection: Connection, statement: Statement, toPark: readonly ToParkOrDelay[]): Promise<void> {
    const records = toPark.map(({ message, attempts, error, retryIn, dead, blocked, delayed }) => ({
      seq: seqOf(message),
      attempts,
      error: error && storable(error, this.#encoding),
      reason: delayed ? 'delayed' : dead ? 'dead' : blocked ? 'blocked' : error ? 'failed' : 'behind',
      retryIn: retryIn ?? (message.key === undefined ? 0 : undefined),
      fate: dead ? 'dead' : blocked ? 'blocked' : 'retry',
      delayed,
    }));
    const rows = await connection.query(statement, [this.#options.destination, JSON.stringify(records)]);
    assertAll(rows.length, records.length);
  }

  #count(message: Message, by: number): void {
    if (this.#uncounted.has(message)) return;
    const { topics } = this.#waiting;
    const topic = message.topic ?? null;
    topics.set(topic, (topics.get(topic) ?? 0) + by);
  }

  /**
   * Counts a message that has waited for its `deliverAt` and then failed, unless it has a key and waits alone.
   * `parkAgain` counts in the same way.
   */
  #countFailed(message: Message): void {
    if (!this.#uncounted.has(message) || (message.key !== undefined && message.holdKey !== true)) return;
    this.#uncounted.delete(message);
    this.#count(message, 1);
  }

  async #promoteHeads(connection: Connection, keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    await connection.query(this.#statements.promoteHeads, [this.#options.destination, JSON.stringify(keys)]);
  }
}

/** Reads the destination's revision, and then how many messages are waiting for each key and topic. */
async function look(
  connection: Connection,
  statements: Statements,
  { destination, partitions }: ClaimOptions,
  share: string | null,
): Promise<{ revision: string | undefined; waiting: Waiting }> {
  // Read the revision first. If messages are requeued between the two statements, the next look then reads the keys
  // again. In the other order, it would miss them.
  const [row] = await connection.query(statements.revision, [destination]);
  const rows = await connection.query(statements.waiting, [destination, share, partitions]);
  const waiting: Waiting = { keys: new Map(), topics: new Map() };
  const { at } = WAITING;
  for (const row of rows) {
    const [key, topic] = [row[at.key], row[at.topic]] as [string | null, string | null];
    if (key !== null) waiting.keys.set(key, Symbol());
    waiting.topics.set(topic, (waiting.topics.get(topic) ?? 0) + Number(row[at.count]));
  }
  return { revision: row?.[0] as string | undefined, waiting };
}

function keysOf(messages: readonly { key?: string | undefined }[]): string[] {
  return [...new Set(messages.flatMap(({ key }) => (key === undefined ? [] : [key])))];
}

function assertAll(changed: number, expected: number): void {
  if (changed === expected) return;
  throw new MessengerError(
    'UNKNOWN_MESSAGE',
    `${String(expected)} messages were to be settled, but ${String(changed)} were found: nothing was changed`,
  );
}

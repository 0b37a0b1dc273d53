import pg from 'pg';
import { describe, expect, inject, it, vi } from 'vitest';
import type { Page, ToPark } from '../../../src/core/contracts/feed.js';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import { ACKNOWLEDGED, type PublishResult } from '../../../src/core/contracts/publisher.js';
import { publishPage } from '../../../src/core/publish/page.js';
import { cleaningOf } from '../../../src/stores/postgres/ops/clean-statements.js';
import type * as cleaningModule from '../../../src/stores/postgres/ops/clean-statements.js';
import type * as cursorModule from '../../../src/stores/postgres/relay/cursor.js';
import type { Statement } from '../../../src/stores/postgres/sql/database.js';
import type * as databaseModule from '../../../src/stores/postgres/sql/database.js';
import type { PgPool, PgPoolClient } from '../../../src/stores/postgres/drivers/pg-client.js';
import type { PostgresFeed } from '../../../src/stores/postgres/relay/feed.js';
import type { PostgresPage } from '../../../src/stores/postgres/relay/page.js';
import type * as leaseModule from '../../../src/stores/postgres/relay/lease.js';
import { namesOf, SLICES, type Names } from '../../../src/stores/postgres/sql/names.js';
import type * as parkedModule from '../../../src/stores/postgres/relay/parked.js';
import type * as readerModule from '../../../src/stores/postgres/relay/reader.js';
import type * as schemaModule from '../../../src/stores/postgres/schema/verify.js';
import { statementsOf } from '../../../src/stores/postgres/relay/statements.js';
import type * as statementsModule from '../../../src/stores/postgres/relay/statements.js';
import { statement } from '../../../src/stores/postgres/sql/statement.js';
import type * as statementModule from '../../../src/stores/postgres/sql/statement.js';
import type * as storeModule from '../../../src/stores/postgres/store.js';
import type { PostgresStore } from '../../../src/stores/postgres/store.js';
import type { PostgresStoreOptions } from '../../../src/stores/postgres/options.js';
import { migrationScript } from '../../../src/stores/postgres/options.js';
import { pageOptions } from '../../core/scripted.js';
import type { PostgresVersion } from '../../support/embedded-postgres.js';

/** The modules of the store that a mutant may replace parts of. */
interface Modules {
  cleaning: typeof cleaningModule;
  cursor: typeof cursorModule;
  database: typeof databaseModule;
  lease: typeof leaseModule;
  parked: typeof parkedModule;
  reader: typeof readerModule;
  schema: typeof schemaModule;
  statement: typeof statementModule;
  statements: typeof statementsModule;
}

/** The file of each module. */
const FILES: Readonly<Record<keyof Modules, string>> = {
  cleaning: 'ops/clean-statements',
  cursor: 'relay/cursor',
  database: 'sql/database',
  lease: 'relay/lease',
  parked: 'relay/parked',
  reader: 'relay/reader',
  schema: 'schema/verify',
  statement: 'sql/statement',
  statements: 'relay/statements',
};

/** A broken store: what replaces the exports of each module. */
export type Mutant = { readonly [M in keyof Modules]?: (original: Modules[M]) => Partial<Modules[M]> };

/** The statements that read the log in different situations. A mutant changes all of them. */
const READS = ['read', 'readNew', 'readAny', 'readAnyNew'] as const;

/** A mutant in which one statement is changed. The text must really change, or the mutant proves nothing. */
export function mutantStatement(
  kind: Exclude<keyof statementsModule.Statements, 'settings'>,
  ...replacements: readonly (readonly [from: string, to: string])[]
): Mutant {
  return {
    statements: (original) => ({
      statementsOf: (names, jsonPayload) => {
        const all = original.statementsOf(names, jsonPayload);
        const missing = replacements.find(([from]) => !all[kind].text.includes(from));
        if (missing) throw new Error(`the statement ${kind} does not say ${missing[0]}: mutate it otherwise`);
        const mutated = ({ text }: { text: string }) =>
          statement(
            kind,
            replacements.reduce((changed, [from, to]) => changed.replaceAll(from, to), text),
          );
        const kinds = kind === 'read' ? READS : [kind];
        return { ...all, ...Object.fromEntries(kinds.map((each) => [each, mutated(all[each])])) };
      },
    }),
  };
}

/** A mutant in which one statement of cleaning is changed. */
export function mutantCleaning(kind: keyof cleaningModule.Cleaning, change: (text: string) => string): Mutant {
  return {
    cleaning: (original) => ({
      cleaningOf: (names, n) => {
        const all = original.cleaningOf(names, n);
        const { name, text } = all[kind];
        if (change(text) === text) throw new Error(`the change leaves the statement ${kind} as it is`);
        return { ...all, [kind]: { name, text: change(text) } };
      },
    }),
  };
}

/** A mutant in which a statement of an operator's function is changed, wherever it is built. */
export function mutantText(kind: string, from: string, to: string): Mutant {
  return {
    statement: (original) => ({
      statement: (each, text) => {
        if (each === kind && !text.includes(from)) throw new Error(`${kind} does not say ${from}: mutate it otherwise`);
        return original.statement(each, each === kind ? text.replaceAll(from, to) : text);
      },
    }),
  };
}

/** The store from freshly loaded modules, some of which are broken. */
async function loadStore(mutant: Mutant = {}): Promise<typeof storeModule> {
  vi.resetModules();
  const paths: string[] = [];
  for (const [name, replace] of Object.entries(mutant)) {
    const path = `../../../src/stores/postgres/${FILES[name as keyof Modules]}.js`;
    paths.push(path);
    vi.doMock(path, async (importOriginal) => {
      const original = await importOriginal<never>();
      return { ...(original as object), ...replace(original) };
    });
  }
  try {
    return await import('../../../src/stores/postgres/store.js');
  } finally {
    for (const path of paths) vi.doUnmock(path);
    vi.resetModules();
  }
}

/** Creates a database for a test file on one of the shared servers, and returns its connection string. */
export async function createDatabase(version: PostgresVersion, name: string): Promise<string> {
  const base = inject('postgres')[version];
  const client = new pg.Client({ connectionString: base });
  await client.connect();
  try {
    await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
  const url = new URL(base);
  url.pathname = `/${name}`;
  return url.href;
}

/** One connection, for a transaction whose every step the test controls. */
export class Session {
  readonly client: pg.Client;
  readonly #store: PostgresStore;

  private constructor(client: pg.Client, store: PostgresStore) {
    this.client = client;
    this.#store = store;
  }

  static async open(url: string, store: PostgresStore): Promise<Session> {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    return new Session(client, store);
  }

  /** The rows, as arrays. */
  async query(text: string, values: unknown[] = []): Promise<unknown[][]> {
    const { rows } = await this.client.query<unknown[]>({ text, values, rowMode: 'array' });
    return rows;
  }

  /** Makes sure that the transaction has its id, and returns the id. */
  async xid(): Promise<string> {
    const [row] = await this.query('SELECT pg_current_xact_id()::text');
    return row![0] as string;
  }

  /** Stores a message with the same id and payload. Its key is the part before the colon. */
  async add(...ids: readonly string[]): Promise<void> {
    await this.#store.add(
      this.client,
      ids.map((id) => newMessage(id, { id, key: keyOf(id) })),
    );
  }

  async commit(): Promise<void> {
    await this.query('COMMIT');
  }
}

function keyOf(id: string): string | undefined {
  return id.includes(':') ? id.slice(0, id.indexOf(':')) : undefined;
}

export interface TestRelayOptions {
  readonly pageSize?: number;
  /** The name by which other relays know it and make room for it. */
  readonly relay?: string;
  /** @default 'default' */
  readonly destination?: string;
  /** Whether the broker accepts a message. @default always */
  readonly acknowledge?: (message: Message) => boolean;
}

/** A relay whose every step the test controls, on top of the engine's own way of publishing a page. */
export class TestRelay {
  /** Ids in the order in which the broker acknowledged them. */
  readonly acknowledged: string[];
  readonly #store: PostgresStore;
  readonly #options: TestRelayOptions;
  #feed: PostgresFeed | undefined;

  private constructor(store: PostgresStore, options: TestRelayOptions, acknowledged: string[]) {
    this.#store = store;
    this.#options = options;
    this.acknowledged = acknowledged;
  }

  static async open(
    store: PostgresStore,
    options: TestRelayOptions = {},
    acknowledged: string[] = [],
  ): Promise<TestRelay> {
    const relay = new TestRelay(store, options, acknowledged);
    await relay.reopen();
    return relay;
  }

  get feed(): PostgresFeed {
    if (!this.#feed) throw new Error('the destination is held by another relay');
    return this.#feed;
  }

  /** Like a restart: everything in memory is forgotten. */
  async reopen(pageSize = this.#options.pageSize ?? 100): Promise<void> {
    await this.close();
    const { destination = 'default', relay } = this.#options;
    this.#feed = (await this.#store.openFeed({ destination, pageSize, relay })) ?? undefined;
  }

  async close(): Promise<void> {
    const feed = this.#feed;
    this.#feed = undefined;
    await feed?.close();
  }

  read(): Promise<PostgresPage> {
    return this.feed.read();
  }

  /** Publishes a page; returns what is to be parked of it. */
  async publish(page: Page): Promise<readonly ToPark[]> {
    const { acknowledge = () => true } = this.#options;
    const publishBatch = async (messages: readonly Message[]): Promise<readonly PublishResult[]> =>
      messages.map((message) => {
        if (!acknowledge(message)) return { acknowledged: false, error: new Error('refused') };
        this.acknowledged.push(message.id);
        return ACKNOWLEDGED;
      });
    const publisher = { publish: async () => {}, publishBatch };
    const isParked = (key: string) => this.feed.isParked(key);
    const options = pageOptions(publisher, { lost: this.feed.lost });
    const outcome = await publishPage(page, options, { isParked, isBusy: () => false }).outcome;
    return [...outcome.toPark, ...outcome.untried];
  }

  settle(page: Page, toPark: readonly ToPark[] = []): Promise<void> {
    return this.feed.settle(page, toPark);
  }

  /** Publishes the due messages of the side table and one page of the log. Resolves to whether there were any. */
  async poll(): Promise<boolean> {
    const retries = await this.feed.retries();
    if (retries.messages.length > 0) await this.settle(retries, await this.publish(retries));
    const page = await this.read();
    if (page.messages.length > 0) await this.settle(page, await this.publish(page));
    return retries.messages.length + page.messages.length > 0;
  }

  async drain(): Promise<void> {
    while (await this.poll());
  }
}

/** A store in a schema of its own, and everything that was opened on it. */
export class World {
  readonly url: string;
  readonly store: PostgresStore;
  readonly names: Names;
  readonly pool: pg.Pool;
  readonly gate = new Gate();
  readonly #admin: Session;
  readonly #sessions: Session[] = [];
  readonly #relays: TestRelay[] = [];

  private constructor(
    url: string,
    another: (options?: PostgresStoreOptions) => PostgresStore,
    store: PostgresStore,
    names: Names,
    pool: pg.Pool,
    gate: Gate,
    admin: Session,
  ) {
    this.url = url;
    this.another = another;
    this.store = store;
    this.names = names;
    this.pool = pool;
    this.gate = gate;
    this.#admin = admin;
  }

  static #count = 0;

  static async create(
    url: string,
    mutant?: Mutant,
    { tables, ...options }: PostgresStoreOptions & { tables?: (sql: string) => string } = {},
  ): Promise<World> {
    const { PostgresStore: Store } = await loadStore(mutant);
    const schema = `world_${(World.#count += 1)}`;
    const pool = new pg.Pool({ connectionString: url, max: 5 });
    const gate = new Gate();
    const names = namesOf(schema, options.tablePrefix ?? '');
    // No heartbeat during a test, because it would be a transaction between the steps.
    const another = (more: PostgresStoreOptions = {}) =>
      new Store(gatedPool(pool, gate, names), { schema, lease: 600_000, ...options, ...more });
    const store = another();
    const admin = await Session.open(url, store);
    if (tables) await admin.client.query(tables(await migrationScript({ schema, ...options })));
    else await store.migrate();
    return new World(url, another, store, names, pool, gate, admin);
  }

  /** Runs outside the transactions of the test. */
  readonly sql = (text: string, values: unknown[] = []): Promise<unknown[][]> => this.#admin.query(text, values);

  /** The same store, as another process would have it. */
  readonly another: (options?: PostgresStoreOptions) => PostgresStore;

  async value(text: string, values: unknown[] = []): Promise<unknown> {
    const [row] = await this.sql(text, values);
    return row?.[0];
  }

  async session(url = this.url): Promise<Session> {
    const session = await Session.open(url, this.store);
    this.#sessions.push(session);
    return session;
  }

  /** A session with an open transaction, which has no id yet. */
  async begin(url = this.url): Promise<Session> {
    const session = await this.session(url);
    await session.query('BEGIN');
    return session;
  }

  /** Stores messages, and commits. */
  async add(...ids: readonly string[]): Promise<void> {
    await this.sql('BEGIN');
    await this.#admin.add(...ids);
    await this.sql('COMMIT');
  }

  async relay(options: TestRelayOptions = {}, acknowledged: string[] = []): Promise<TestRelay> {
    const relay = await TestRelay.open(this.store, options, acknowledged);
    this.#relays.push(relay);
    return relay;
  }

  /** Pretends that these relays are running too. */
  async announce(...relays: readonly string[]): Promise<void> {
    for (const relay of relays) {
      await this.sql(`INSERT INTO ${this.names.relays} VALUES ('default', $1, 'infinity') ON CONFLICT DO NOTHING`, [
        relay,
      ]);
    }
  }

  /** Pretends that the lease has expired. */
  async expireLease(): Promise<void> {
    await this.sql(
      `UPDATE ${this.names.cursors} SET expires_at = '-infinity', written_by = pg_current_xact_id() WHERE owner IS NOT NULL`,
    );
  }

  /** Whether a snapshot of the stored cursor does not list this running transaction. */
  async isUnlisted(xid: string, column: 'from_snapshot' | 'to_snapshot' = 'from_snapshot'): Promise<boolean> {
    const found = await this.value(
      `SELECT $1::xid8 >= pg_snapshot_xmax(${column}) FROM ${this.names.cursors} LIMIT 1`,
      [xid],
    );
    return found as boolean;
  }

  /** Resolves when a session waits for an advisory lock, or for a row. */
  async waiting(session: Session | 'any'): Promise<void> {
    const pid = session === 'any' ? null : (session.client as unknown as { processID: number }).processID;
    for (;;) {
      const found = await this.value(
        `SELECT count(*)::int FROM pg_locks JOIN pg_stat_activity USING (pid)
          WHERE NOT granted AND datname = current_database() AND ($1::int IS NULL OR pid = $1)`,
        [pid],
      );
      if (found !== 0) return;
    }
  }

  async close(): Promise<void> {
    this.gate.open();
    await Promise.all(this.#sessions.map(({ client }) => client.end()));
    await Promise.all(this.#relays.map((relay) => relay.close()));
    await this.#admin.client.end();
    await this.pool.end();
  }
}

/** Holds back the answer of a statement: the statement has had its effect, and the store does not know it yet. */
class Gate {
  /** How many statements of each kind were run. */
  readonly counts = new Map<string, number>();
  #kind: string | undefined;
  #arrived: (() => void) | undefined;
  #opened: Promise<void> = Promise.resolve();
  #open: (() => void) | undefined;

  /**
   * The next answer to a statement of this kind waits for `open`. Resolves when the answer has arrived. What is held
   * now continues, with nothing in between.
   */
  hold(kind: string): Promise<void> {
    this.open();
    this.#kind = kind;
    this.#opened = new Promise((resolve) => (this.#open = resolve));
    return new Promise((resolve) => (this.#arrived = resolve));
  }

  open(): void {
    this.#open?.();
  }

  async pass(name: string | undefined): Promise<void> {
    const kind = name?.split('_')[1];
    if (kind !== undefined) this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    if (this.#kind === undefined || name?.startsWith(`messenger_${this.#kind}_`) !== true) return;
    this.#kind = undefined;
    this.#arrived?.();
    await this.#opened;
  }
}

function gatedPool(pool: pg.Pool, gate: Gate, names: Names): PgPool & { query: () => never } {
  // Behind a pooler, statements are sent without their names.
  const all = [statementsOf(names, false), ...Array.from({ length: SLICES }, (_, n) => cleaningOf(names, n))];
  const known = new Map(all.flatMap(Object.values<Statement>).map(({ name, text }) => [text, name]));
  const nameOf = (query: string | { name?: string | undefined; text: string }): string | undefined => {
    if (typeof query !== 'string') return query.name ?? known.get(query.text);
    // The beginning of a transaction, with its preamble, is a kind of its own.
    return query.startsWith('BEGIN') ? 'messenger_begin_' : undefined;
  };
  const gated = new WeakMap<object, PgPoolClient>();
  const connect = async (): Promise<PgPoolClient> => {
    const client = await pool.connect();
    const known = gated.get(client);
    if (known) return known;
    const query = async (query: string | pg.QueryArrayConfig) => {
      const result = await client.query(query as string);
      await gate.pass(nameOf(query));
      return result as never;
    };
    const made: PgPoolClient = {
      query,
      escapeIdentifier: (text) => client.escapeIdentifier(text),
      release: (destroy) => {
        client.release(destroy);
      },
      on: (event, listener) => client.on(event, listener),
    };
    gated.set(client, made);
    return made;
  };
  return {
    connect,
    query: () => {
      throw new Error('the store works on connections of its own');
    },
    on: (event: string, listener: (told: never) => void) => pool.on(event as 'error', listener as () => void),
    get totalCount() {
      return pool.totalCount;
    },
    get idleCount() {
      return pool.idleCount;
    },
  };
}

export interface Hazard {
  /** How the store is broken. The play may break the database too. */
  readonly mutant?: Mutant;
  readonly options?: PostgresStoreOptions;
  /** The tables of the mutant, made from the SQL of the store's own tables. */
  readonly brokenTables?: (sql: string) => string;
  /** Plays the interleaving, and returns its result. */
  readonly play: (world: World, broken: boolean) => Promise<unknown>;
  readonly right: unknown;
  readonly wrong: unknown;
}

/** An interleaving did not come about, because of something that the server does by itself. Nothing was tested. */
export class NotSetUp extends Error {}

/** Plays until the interleaving comes about. */
async function cameAbout<T>(play: () => Promise<T>, tries = 30): Promise<T> {
  try {
    return await play();
  } catch (error) {
    if (!(error instanceof NotSetUp) || tries === 1) throw error;
    return cameAbout(play, tries - 1);
  }
}

/** Plays each hazard on the store, and on its mutant. */
export function itHolds(url: () => string, hazards: Readonly<Record<string, Hazard>>): void {
  describe.each(Object.entries(hazards))('%s', (_, { play, mutant = {}, options = {}, brokenTables, right, wrong }) => {
    it('holds', async () => {
      const played = cameAbout(() => inWorld((world) => play(world, false), url(), {}, options));
      expect(await played).toEqual(right);
    });

    it('does not hold for its mutant', async () => {
      const broken = brokenTables ? { ...options, tables: brokenTables } : options;
      const played = cameAbout(() => inWorld((world) => play(world, true), url(), mutant, broken));
      expect(await played).toEqual(wrong);
    });
  });
}

/** Runs on a store in a schema of its own, and closes everything afterwards. */
export async function inWorld<T>(
  play: (world: World) => Promise<T>,
  ...args: Parameters<typeof World.create>
): Promise<T> {
  const world = await World.create(...args);
  try {
    return await play(world);
  } finally {
    await world.close();
  }
}

/** The SQL of the tables, with seq before xid. */
export function swapColumns(sql: string): string {
  const [xid] = /^ *xid .*\n/m.exec(sql)!;
  const [seq] = /^ *seq .*\n/m.exec(sql)!;
  return sql.replace(xid + seq, seq + xid);
}

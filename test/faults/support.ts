import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { verify } from '../../examples/abitofall/verify.js';
import { newMessage } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { RecordingBroker } from './broker.js';
import type { Findings } from '../support/verifier/judge.js';
import type { RelayConfig, RelayEvent } from './relay-process.js';

/** `FAULTS_SEED` repeats the choices of a run, though not the moments at which they meet. */
export const seed = Number(process.env['FAULTS_SEED'] ?? Date.now() % 1_000_000_000);

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(stream: number): () => number {
  let state = seed * 1_000 + stream;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Resolves when the condition holds. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limit = 60_000,
): Promise<void> {
  const deadline = performance.now() + limit;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${limit} ms: ${what}`);
    await sleep(10);
  }
}

/** What a test found, for whoever reads its output. */
export function report(figures: string): void {
  process.stdout.write(`      ${figures} (FAULTS_SEED=${seed})\n`);
}

/** A relay in a process of its own. */
export class RelayProcess {
  readonly name: string;
  readonly events: RelayEvent[] = [];
  stderr = '';
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  constructor(config: RelayConfig) {
    this.name = config.name;
    const file = fileURLToPath(new URL('relay-process.ts', import.meta.url));
    const child = spawn(process.execPath, ['--import', 'tsx', file, JSON.stringify(config)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.#ended = once(child, 'close');
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.events.push(JSON.parse(line) as RelayEvent);
    });
    child.stderr.on('data', (data: Buffer) => {
      this.stderr += data.toString();
    });
  }

  /** The exit code, or the signal that ended it; `null` while it runs. */
  get end(): number | string | null {
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when it has ended, by itself or by this signal, to its exit code and standard error. */
  async ended(signal?: NodeJS.Signals): Promise<{ end: number | string | null; stderr: string }> {
    if (signal !== undefined) this.signal(signal);
    await eventually(`the end of ${this.name}`, () => this.end !== null);
    await this.#ended;
    return { end: this.end, stderr: this.stderr };
  }

  async remove(): Promise<void> {
    if (this.end === null) this.signal('SIGKILL');
    await this.#ended;
  }
}

/** How a relay that was asked to stop ends. */
export const GRACEFUL = { end: 0, stderr: '' };

export type RelaySettings = Partial<Pick<RelayConfig, 'form' | 'hogs' | 'console' | 'store' | 'messenger'>> & {
  /** Where the relay finds the database, if not where all do. */
  readonly url?: string;
};

export const PAGE = 20;
const DEPTH = 4;

/** Most that a relay which died, or lost its lease, may have repeated. */
export const BOUND = PAGE * DEPTH;

const KEYS = 12;
const WRITERS = 4;
/** Writers wait while so many messages are on their way: the relay is to be busy, not to be late for ever. */
const MAX_BACKLOG = 400;

/** A database with an outbox, its writers, its relays, and the broker that they publish to. */
export class Outbox {
  readonly url: string;
  readonly broker: RecordingBroker;
  readonly store: PostgresStore;
  /** What the writers' commits wait for: with `off`, a crash of the server may lose them. */
  synchronousCommit: 'on' | 'off' = 'on';
  /** When the COMMIT of each message was sent, whatever has become of it. */
  readonly commitSentAt = new Map<string, number>();
  readonly #pool: pg.Pool;
  readonly #relays: RelayProcess[] = [];
  readonly #sessions: pg.Client[] = [];
  #settings: RelaySettings;
  #writing: { stop: boolean; ended: Promise<unknown> } | undefined;
  #committed = 0;
  #labels = 0;

  private constructor(url: string, broker: RecordingBroker, pool: pg.Pool, settings: RelaySettings) {
    this.url = url;
    this.broker = broker;
    this.#pool = pool;
    this.#settings = settings;
    // Slices of ten seconds, which cleaning empties during the longer tests.
    this.store = new PostgresStore(pool, { retention: 60_000 });
  }

  /** Runs a test on a new outbox in this database, and ends everything that was started. */
  static async run(url: string, settings: RelaySettings, test: (outbox: Outbox) => Promise<void>): Promise<void> {
    const pool = new pg.Pool({ connectionString: url, max: 10 });
    pool.on('error', () => {});
    // A client in use tells its own errors, beside the query that they end.
    pool.on('connect', (client) => {
      client.on('error', () => {});
    });
    const outbox = new Outbox(url, await RecordingBroker.start(), pool, settings);
    try {
      await outbox.store.migrate();
      await outbox.sql(`
        CREATE TABLE counters (key text PRIMARY KEY, n integer NOT NULL DEFAULT 0);
        INSERT INTO counters (key) SELECT 'k' || n FROM generate_series(1, ${KEYS}) n;
        CREATE TABLE ledger (id text PRIMARY KEY, key text, n integer)`);
      await test(outbox);
    } finally {
      await outbox.#close();
    }
  }

  /** Starts a relay; its settings are those of the outbox, but for these. */
  relay(name: string, settings: RelaySettings = {}): RelayProcess {
    const { form = 'batch', hogs, console, url = this.url, store, messenger } = { ...this.#settings, ...settings };
    const relay = new RelayProcess({
      name,
      databaseUrl: url,
      brokerPort: this.broker.port,
      form,
      ...(hogs !== undefined && { hogs }),
      ...(console !== undefined && { console }),
      store: { lease: 1_000, timeout: 5_000, ...store },
      messenger: {
        publishBatchSize: PAGE,
        pipelineDepth: DEPTH,
        interval: 100,
        retry: { minDelay: 20, maxDelay: 200 },
        ...messenger,
      },
    });
    this.#relays.push(relay);
    return relay;
  }

  async sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    const { rows } = values.length > 0 ? await this.#pool.query(text, values) : await this.#pool.query(text);
    return rows as Record<string, unknown>[];
  }

  /** A connection for a transaction that the test holds open. */
  async session(url = this.url): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    this.#sessions.push(client);
    return client;
  }

  /**
   * Stores one message of each of these keys, in one transaction, which holds the keys' counters to its
   * end. The ledger is what was really stored, in the order of each key.
   */
  async write(keys: readonly (string | undefined)[], ending: 'COMMIT' | 'ROLLBACK' = 'COMMIT'): Promise<string[]> {
    const client = await this.#pool.connect();
    let broken = true;
    try {
      await client.query(`BEGIN; SET LOCAL synchronous_commit = ${this.synchronousCommit}`);
      const numbers = new Map<string, number>();
      for (const key of new Set(keys)) {
        if (key === undefined) continue;
        const count = keys.filter((each) => each === key).length;
        const counted = await client.query<{ before: number }>(
          'UPDATE counters SET n = n + $2 WHERE key = $1 RETURNING n - $2 AS before',
          [key, count],
        );
        numbers.set(key, counted.rows[0]!.before);
      }
      const rows = keys.map((key) => {
        const n = key === undefined ? null : numbers.get(key)! + 1;
        if (key !== undefined) numbers.set(key, n!);
        return { id: `${key ?? 'none'}/${n ?? '-'}/${(this.#labels += 1)}`, key, n };
      });
      const ids = rows.map(({ id }) => id);
      await this.store.add(
        client,
        rows.map(({ id, key }) => newMessage(id, { id, key })),
      );
      await client.query('INSERT INTO ledger SELECT * FROM unnest($1::text[], $2::text[], $3::int[])', [
        ids,
        rows.map(({ key }) => key ?? null),
        rows.map(({ n }) => n),
      ]);
      if (ending === 'COMMIT') for (const id of ids) this.commitSentAt.set(id, performance.now());
      await client.query(ending);
      broken = false;
      if (ending === 'COMMIT') this.#committed += ids.length;
      return ids;
    } finally {
      client.release(broken);
    }
  }

  /** Writers that go on, whatever happens to the server, until `stopWriting`. A fifth of what they do is rolled back. */
  startWriting(): void {
    const writing = { stop: false, ended: Promise.resolve() as Promise<unknown> };
    writing.ended = Promise.all(
      Array.from({ length: WRITERS }, async (_, writer) => {
        const random = randomOf(writer);
        while (!writing.stop) {
          if (this.#committed - this.broker.count > MAX_BACKLOG) {
            await sleep(5);
            continue;
          }
          const places = Array.from({ length: 1 + Math.floor(random() * 4) }, () => Math.floor(random() * (KEYS + 1)));
          // In one order, so that writers never wait for each other in a circle.
          const keys = [...new Set(places)]
            .sort((a, b) => a - b)
            .map((place) => (place === 0 ? undefined : `k${place}`));
          const ending = random() < 0.2 ? 'ROLLBACK' : 'COMMIT';
          // While the server is away: what was committed nevertheless is in the ledger.
          await this.write(keys, ending).catch(() => sleep(20));
        }
      }),
    );
    this.#writing = writing;
  }

  /** Writers do not wait for what has not come so far: what a crash has lost, what is dead, or waits. */
  forgetBacklog(): void {
    this.#committed = this.broker.count;
  }

  async stopWriting(): Promise<void> {
    if (!this.#writing) return;
    this.#writing.stop = true;
    await this.#writing.ended;
    this.#writing = undefined;
  }

  /** The ids of the dead letters. */
  async dead(): Promise<string[]> {
    return (await this.sql('SELECT id FROM messenger.parked WHERE dead_at IS NOT NULL')).map(({ id }) => id as string);
  }

  /** Resolves when everything that was stored is acknowledged or dead, or, after so many milliseconds, when there is no more hope. */
  async drained(patience = 60_000): Promise<void> {
    const ids = (await this.sql('SELECT id FROM ledger')).map(({ id }) => id as string);
    const limit = performance.now() + patience;
    for (;;) {
      const open = ids.filter((id) => !this.broker.has(id));
      if (open.length === 0 || performance.now() > limit) return;
      const dead = await this.dead();
      if (open.every((id) => dead.includes(id))) return;
      await sleep(20);
    }
  }

  /**
   * What is wrong, of the promises that hold whatever happens: nothing when all of it is empty. The
   * relays and writers must have ended, since their sessions tell their statistics then.
   */
  async wrong(): Promise<typeof NOTHING> {
    const rows = await this.sql('SELECT id, key, n FROM ledger ORDER BY key, n');
    const ledger = rows as { id: string; key: string | null; n: number }[];
    const dead = new Set(await this.dead());
    const stored = new Set(ledger.map(({ id }) => id));
    const firsts = this.broker.firsts();
    const due = ledger.filter(({ id }) => !dead.has(id));
    const disordered: string[] = [];
    for (let k = 1; k <= KEYS; k++) {
      // Dead letters too: one may have been acknowledged, that answer lost, and the next one a refusal.
      const wanted = ledger.filter(({ key, id }) => key === `k${k}` && this.broker.has(id)).map(({ id }) => id);
      const was = firsts.filter((id) => id.startsWith(`k${k}/`) && stored.has(id));
      const at = was.findIndex((id, i) => id !== wanted[i]);
      if (at >= 0) disordered.push(`${was[at]!} where ${wanted[at] ?? 'nothing'} was due`);
    }
    const some = (ids: readonly string[]) => (ids.length > 5 ? [...ids.slice(0, 5), `… ${ids.length}`] : ids);
    const [slices] = await this.sql(`SELECT count(*)::int AS count, sum(n_tup_upd + n_tup_del)::int AS changed
      FROM pg_stat_user_tables WHERE schemaname = 'messenger' AND relname ~ '^messages_[0-9]+$'`);
    if (slices!['count'] !== 8) throw new Error(`expected eight slices, found ${String(slices!['count'])}`);
    return {
      lost: some(due.filter(({ id }) => !this.broker.has(id)).map(({ id }) => id)),
      phantom: some(firsts.filter((id) => !stored.has(id))),
      disordered: some(disordered),
      changedRows: slices!['changed'] as number,
    };
  }

  /**
   * What the verifier finds: a process of its own, which knows nothing of the library, holds what this database says to be
   * committed against what has arrived. Where nothing is cleaned or dead.
   */
  async verdict(): Promise<Findings> {
    await this.sql(`
      CREATE VIEW orders AS SELECT id AS message_id, coalesce(key, id) AS customer, coalesce(n, 0) AS number FROM ledger;
      CREATE TABLE arrivals (n bigint GENERATED ALWAYS AS IDENTITY, message_id text NOT NULL)`);
    await this.sql(
      'INSERT INTO arrivals (message_id) SELECT id FROM unnest($1::text[]) WITH ORDINALITY AS a (id, n) ORDER BY n',
      [this.broker.acknowledgements.map(({ id }) => id)],
    );
    const databases = { shop: this.url, warehouse: this.url, verifier: this.url };
    return (await verify({ databases, endpoint: '', queue: undefined })).findings;
  }

  /** What the broker has acknowledged, and nobody has stored. */
  async phantoms(): Promise<string[]> {
    const stored = new Set((await this.sql('SELECT id FROM ledger')).map(({ id }) => id as string));
    return this.broker.firsts().filter((id) => !stored.has(id));
  }

  /** How many rows the statistics of the slices know: without any, they say nothing about changed ones either. */
  async insertedRows(): Promise<number> {
    const [row] = await this.sql(`SELECT sum(n_tup_ins)::int AS n FROM pg_stat_user_tables
      WHERE schemaname = 'messenger' AND relname ~ '^messages_[0-9]+$'`);
    return row!['n'] as number;
  }

  /** As if the leases of relays that are dead had run out: what the server still does for them comes before, or is fenced. */
  async expireLeases(): Promise<void> {
    await this.sql(`UPDATE messenger.cursors SET expires_at = '-infinity', written_by = pg_current_xact_id()`);
    await this.sql(`UPDATE messenger.relays SET expires_at = '-infinity'`);
  }

  /** Who holds the destination, and where it is. Not how long: that changes while nothing happens. */
  async cursor(): Promise<Record<string, unknown>[]> {
    return this.sql(`SELECT partition, owner, epoch, from_snapshot::text, to_snapshot::text, after, low, next_low, high
      FROM messenger.cursors ORDER BY partition`);
  }

  /** The sum of failed attempts of all that is parked, and how many that are. */
  async parked(): Promise<{ count: number; attempts: number }> {
    const [row] = await this.sql(
      'SELECT count(*)::int AS count, coalesce(sum(attempts), 0)::int AS attempts FROM messenger.parked',
    );
    return row as { count: number; attempts: number };
  }

  async #close(): Promise<void> {
    if (this.#writing) this.#writing.stop = true;
    this.broker.open();
    await Promise.all(this.#relays.map((relay) => relay.remove()));
    await this.broker.close();
    await this.#writing?.ended;
    await Promise.all(this.#sessions.map((session) => session.end().catch(() => undefined)));
    await this.#pool.end();
  }
}

/** What `Outbox.wrong` finds when all is well. */
export const NOTHING: {
  lost: readonly string[];
  phantom: readonly string[];
  disordered: readonly string[];
  changedRows: number;
} = {
  lost: [],
  phantom: [],
  disordered: [],
  changedRows: 0,
};

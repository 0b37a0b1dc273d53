/**
 * The gap of a cursor under load: many writers that take row locks, sleep, roll back, use savepoints, prepare
 * transactions and hold them open for long, against a relay with tiny pages that forgets everything in memory every few
 * pages, even in the middle of windows.
 *
 * The writers' own transactions leave in a table what must arrive, and in which order per key. `STRESS_SEED` repeats
 * the choices of a run, and `STRESS_SECONDS` makes it longer.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import { postgresVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, type Session, type World } from './support.js';

const WRITERS = 12;
const KEYS = 30;
const PAGE_SIZES = [3, 7, 50];
const seed = Number(process.env['STRESS_SEED'] ?? Date.now() % 1_000_000_000);
const duration = Number(process.env['STRESS_SECONDS'] ?? 5) * 1_000;

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

class Chance {
  readonly next: () => number;
  constructor(stream: number) {
    this.next = randomOf(seed * 1_000 + stream);
  }
  /** True in so many of a hundred cases. */
  percent(of: number): boolean {
    return this.next() * 100 < of;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/** `counters` orders the writers of a key: its row lock is held until the transaction ends. */
async function prepareTables(world: World): Promise<void> {
  const { schema } = world.names;
  await world.sql(`CREATE TABLE ${schema}.counters (key text PRIMARY KEY, n integer NOT NULL DEFAULT 0)`);
  await world.sql(`INSERT INTO ${schema}.counters (key) SELECT 'k' || n FROM generate_series(1, ${KEYS}) n`);
  await world.sql(`CREATE TABLE ${schema}.ledger (id text PRIMARY KEY, key text, n integer)`);
}

/** Stores one message with a key, or with none, and writes it into the ledger in the same transaction. */
async function storeOne(world: World, session: Session, key: string | undefined, label: string): Promise<void> {
  const { schema } = world.names;
  let n = 0;
  if (key !== undefined) {
    const [row] = await session.query(`UPDATE ${schema}.counters SET n = n + 1 WHERE key = $1 RETURNING n`, [key]);
    n = row![0] as number;
  }
  const id = `${key ?? 'none'}/${n}/${label}`;
  await world.store.add(session.client, newMessage(id, { id, key }));
  await session.query(`INSERT INTO ${schema}.ledger VALUES ($1, $2, $3)`, [id, key ?? null, n]);
}

async function writeOne(world: World, session: Session, chance: Chance, label: string): Promise<void> {
  await session.query('BEGIN');
  // An early id and a late seq make a transaction that is unlisted in a snapshot, or older than its neighbours.
  if (chance.percent(40)) await session.xid();
  if (chance.percent(40)) await sleep(chance.below(10));
  const keys = Array.from({ length: 1 + chance.below(3) }, () => chance.below(KEYS + 3)).sort((a, b) => a - b);
  for (const [place, k] of keys.entries()) {
    const key = k === 0 || k > KEYS ? undefined : `k${k}`;
    const nested = chance.percent(25);
    if (nested) await session.query('SAVEPOINT nested');
    await storeOne(world, session, key, `${label}.${place}`);
    if (nested) await session.query(chance.percent(50) ? 'ROLLBACK TO nested' : 'RELEASE nested');
    if (chance.percent(30)) await sleep(chance.below(10));
  }
  // Rarely, because it holds its keys all that time.
  if (chance.percent(2)) await sleep(200 + chance.below(600));
  const ending = chance.percent(20) ? 'ROLLBACK' : 'COMMIT';
  if (!chance.percent(15)) {
    await session.query(ending);
    return;
  }
  const name = `${world.names.schema} ${label}`;
  await session.query(`PREPARE TRANSACTION '${name}'`);
  await sleep(chance.below(20));
  await session.query(`${ending} PREPARED '${name}'`);
}

/** Starts the writers. Resolves when all have ended. */
async function write(world: World, until: number): Promise<void> {
  await Promise.all(
    Array.from({ length: WRITERS }, async (_, writer) => {
      const session = await world.session();
      const chance = new Chance(writer);
      for (let i = 0; performance.now() < until; i++) await writeOne(world, session, chance, `${writer}.${i}`);
    }),
  );
}

/** What a broker has received, and what it may receive twice. */
class Received {
  readonly ids: string[] = [];
  readonly duplicates: string[] = [];
  readonly #seen = new Set<string>();
  /** Acknowledged, but not settled before a reload. */
  readonly #mayComeAgain = new Set<string>();

  acknowledge(id: string): void {
    if (!this.#seen.has(id)) this.ids.push(id);
    else if (!this.#mayComeAgain.delete(id)) this.duplicates.push(id);
    this.#seen.add(id);
  }

  forget(ids: readonly string[]): void {
    for (const id of ids) this.#mayComeAgain.add(id);
  }
}

/** Every committed message arrives once, no other does, and each key is in the order of its counter. */
async function judge(world: World, received: Received): Promise<void> {
  const rows = await world.sql(`SELECT id, key, n FROM ${world.names.schema}.ledger ORDER BY key, n`);
  const ledger = rows as [id: string, key: string | null, n: number][];
  const stored = new Set(ledger.map(([id]) => id));
  const got = new Set(received.ids);
  const report = {
    lost: [...stored].filter((id) => !got.has(id)),
    phantom: received.ids.filter((id) => !stored.has(id)),
    unbounded: received.duplicates,
    disordered: [] as string[],
  };
  for (let k = 1; k <= KEYS; k++) {
    const right = ledger.filter(([, key]) => key === `k${k}`).map(([id]) => id);
    const was = received.ids.filter((id) => id.startsWith(`k${k}/`));
    const wrong = was.findIndex((id, i) => id !== right[i]);
    if (wrong >= 0) report.disordered.push(`${String(was[wrong])} instead of ${String(right[wrong])}`);
  }
  expect(report, `seed ${seed}`).toEqual({ lost: [], phantom: [], unbounded: [], disordered: [] });
  // There was load: the counters alone would agree about nothing.
  expect(ledger.length).toBeGreaterThan((100 * duration) / 5_000);
}

/** Relays in turns of a few pages, until the writers have ended and nothing is left. */
async function relayAll(world: World, writing: Promise<void>, failures: number): Promise<Received> {
  const received = new Received();
  const chance = new Chance(100);
  let written = false;
  void writing.finally(() => (written = true)).catch(() => {});
  const acknowledge = ({ id }: Message): boolean => {
    if (chance.percent(failures)) return false;
    received.acknowledge(id);
    return true;
  };
  const relay = await world.relay({ acknowledge });
  for (let idle = 0; idle < 2;) {
    const last = written;
    await relay.reopen(chance.of(PAGE_SIZES));
    const retries = await relay.feed.retries();
    if (retries.messages.length > 0) await relay.settle(retries, await relay.publish(retries));
    let worked = retries.messages.length > 0;
    // As the engine does: a page is published while the one before is being settled.
    let settling: Promise<void> = Promise.resolve();
    for (let pages = 1 + chance.below(6); pages > 0; pages--) {
      const before = relay.acknowledged.length;
      const page = await relay.read();
      worked ||= page.messages.length > 0;
      const toPark = await relay.publish(page);
      await settling;
      // Reloaded with a page that was published and not settled: that page, and only that, is published again.
      if (pages === 1 && chance.percent(50)) received.forget(relay.acknowledged.slice(before));
      else if (page.messages.length > 0) settling = relay.settle(page, toPark);
    }
    await settling;
    idle = last && !worked && (await nothingWaits(world)) ? idle + 1 : 0;
  }
  await writing;
  return received;
}

async function nothingWaits(world: World): Promise<boolean> {
  return (await world.value(`SELECT count(*)::int FROM ${world.names.parked} WHERE dead_at IS NULL`)) === 0;
}

/** As `relayAll`, through the plain contract: lists messages, publishes some, and marks these. */
async function publishAll(world: World, writing: Promise<void>): Promise<Received> {
  const received = new Received();
  const chance = new Chance(200);
  let written = false;
  void writing.finally(() => (written = true)).catch(() => {});
  for (let idle = 0; idle < 2;) {
    const last = written;
    const batch = chance.of(PAGE_SIZES);
    let worked = false;
    for (let pages = 1 + chance.below(6); pages > 0; pages--) {
      const listed = await world.store.messages(batch);
      worked ||= listed.length > 0;
      // A failing key leaves gaps, and all its messages wait.
      const failing = chance.percent(30) ? chance.below(KEYS) + 1 : undefined;
      const sent = listed.filter(({ key }) => key === undefined || key !== `k${String(failing)}`);
      for (const { id } of sent) received.acknowledge(id);
      if (pages === 1 && chance.percent(50)) {
        received.forget(sent.map(({ id }) => id));
      } else if (chance.percent(30)) {
        // With two calls, the later half first.
        const half = sent.length >> 1;
        await world.store.published(...sent.slice(half));
        await world.store.published(...sent.slice(0, half));
      } else {
        await world.store.published(...sent);
      }
    }
    await world.store.close();
    idle = last && !worked ? idle + 1 : 0;
  }
  await writing;
  return received;
}

const relays = {
  'by poll()': (world: World, writing: Promise<void>) => relayAll(world, writing, 0),
  'by poll(), to a broker that fails': (world: World, writing: Promise<void>) => relayAll(world, writing, 5),
  'by messages() and published()': publishAll,
};

describe.each(postgresVersions)('many writers, tiny pages, reloaded cursors: PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'stress');
  });

  it.each(Object.entries(relays))('%s', async (_, relay) => {
    onTestFailed(() => {
      console.error(`repeat with STRESS_SEED=${seed}`);
    });
    await inWorld(async (world) => {
      await prepareTables(world);
      const writing = write(world, performance.now() + duration);
      await judge(world, await relay(world, writing));
    }, url);
  });
});

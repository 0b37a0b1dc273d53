/** A publication of all tables, as Debezium or a logical upgrade creates it, beside everything that an outbox does. */
import { readdir } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { migrationScript, PostgresStore } from '../../../src/stores/postgres/index.js';
import { copyLogically } from '../../support/copies.js';
import { newDatabase } from '../../support/database.js';
import { postgresVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { Outbox } from './moved-support.js';

/** The tables that the replica shares with the source: all but those that no publication includes. */
const PUBLISHED = ['messages', 'cursors', 'parked', 'settings', 'destinations', 'inbox', 'migrations'] as const;

/** A second database with the same tables, which a subscription feeds until the test ends. */
async function subscribed(server: EmbeddedPostgres, source: Outbox, from: string): Promise<Replica> {
  const name = new URL(source.url).pathname.slice(1);
  const replica = new pg.Client({ connectionString: await newDatabase(server.url()) });
  await replica.connect();
  onTestFinished(async () => {
    await replica.query(`ALTER SUBSCRIPTION ${name} DISABLE; ALTER SUBSCRIPTION ${name} SET (slot_name = NONE)`);
    await replica.query(`DROP SUBSCRIPTION ${name}`);
    await replica.end();
    // Its walsender may stay for a moment longer.
    for (;;) {
      const dropped = await source.pool
        .query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [name])
        .then(() => true)
        .catch(() => false);
      if (dropped) break;
    }
  });
  // As a schema dump brings them, without rows.
  await replica.query(`${from}; CREATE TABLE orders (id int PRIMARY KEY);
    TRUNCATE messenger.settings, messenger.migrations`);
  // On the same server, it must not wait for a slot that it creates itself.
  await source.pool.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
  await replica.query(`CREATE SUBSCRIPTION ${name} CONNECTION 'host=127.0.0.1 port=${String(server.port)} dbname=${name} user=postgres'
    PUBLICATION everything WITH (create_slot = false, slot_name = '${name}')`);
  const copied = "SELECT count(*)::int AS waiting FROM pg_subscription_rel WHERE srsubstate <> 'r'";
  while ((await replica.query<{ waiting: number }>(copied)).rows[0]!.waiting > 0);
  return new Replica(source, replica);
}

class Replica {
  #orders = 0;
  constructor(
    private readonly source: Outbox,
    private readonly client: pg.Client,
  ) {}

  async run(text: string): Promise<void> {
    await this.client.query(text);
  }

  /** Resolves when the application's own row has arrived, and with it everything that was changed before. */
  async follows(): Promise<void> {
    const id = (this.#orders += 1);
    await this.source.pool.query('INSERT INTO orders VALUES ($1)', [id]);
    for (;;) {
      if ((await this.client.query('SELECT FROM orders WHERE id = $1', [id])).rowCount === 1) break;
    }
    for (const table of PUBLISHED) {
      const text = `SELECT coalesce(json_agg(t ORDER BY t::text)::text, '') AS rows FROM messenger.${table} t`;
      const [here, there] = await Promise.all([this.source.pool.query(text), this.client.query(text)]);
      expect(there.rows, table).toEqual(here.rows);
    }
  }
}

describe.each(postgresVersions)('with a publication of all tables, on PostgreSQL %i', (version) => {
  let server: EmbeddedPostgres;
  beforeAll(async () => {
    server = await startPostgres(version, { wal_level: 'logical', fsync: 'off' });
  });
  afterAll(() => server.remove());

  async function publish({ pool }: Outbox): Promise<void> {
    await pool.query('CREATE TABLE orders (id int PRIMARY KEY); CREATE PUBLICATION everything FOR ALL TABLES');
  }

  it('a subscriber follows relays, operators, cleaning and the application', async () => {
    const outbox = await Outbox.at(await newDatabase(server.url()));
    await publish(outbox);
    const { store } = outbox;
    await outbox.add('a:0', 'b:0');
    await outbox.relay({ pageSize: 1 });
    const replica = await subscribed(server, outbox, await migrationScript({ partitions: 3 }));
    await replica.follows();

    await outbox.add(...Array.from({ length: 50 }, (_, n) => `k${String(n % 7)}:${String(n)}`));
    expect(await outbox.relay({ pageSize: 1 })).toHaveLength(50);
    await replica.follows();
    await outbox.add('a:1', 'a:2', 'b:1');
    const refused = { toPark: (id: string) => (id === 'a:1' ? 0 : undefined) };
    await outbox.relay({ ...refused, pages: 2 });
    await replica.follows();
    await outbox.relay();
    await outbox.pool.query(
      `INSERT INTO messenger.parked (destination, seq, key_hash, stored_at, at, id, key, metadata, payload, dead_at)
       SELECT 'default', seq + 1000, key_hash, stored_at, at, id, key, metadata, payload, now() FROM messenger.messages WHERE id IN ('a:1', 'b:1')`,
    );
    expect(await store.admin.requeue({ key: 'a' })).toBe(1);
    expect(await store.admin.discard({ all: true })).toBe(1);
    await outbox.relay();
    await replica.follows();

    await store.admin.addDestination('other', { from: 'beginning' });
    await store.admin.updateDestination('other', { forgetAfter: 60_000 });
    await replica.follows();
    await outbox.pool.query("UPDATE messenger.destinations SET created_at = now() - interval '1 hour'");
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ forgotten: ['other'] });
    expect(await outbox.value('SELECT count(*)::int FROM messenger.messages')).toBe(0);
    await replica.follows();
    await store.admin.removeDestination('other');
    await store.admin.repartition(5);
    await replica.follows();
    expect(await new PostgresStore(outbox.pool, { partitions: 5 }).migrate()).toEqual([]);
    expect(await new PostgresStore(outbox.pool, { partitions: 5, retention: 600_000 }).migrate()).toHaveLength(1);
    await replica.follows();
  });

  it.each([{ jsonPayload: false }, { jsonPayload: true }])(
    'a rebase succeeds, and its subscriber follows, with %o',
    async ({ jsonPayload }) => {
      const old = await Outbox.at(await newDatabase(server.url()), { jsonPayload });
      const payload = jsonPayload ? '{"n":1}' : 'x';
      const add = (outbox: Outbox, ...ids: string[]) =>
        outbox.pool.query(
          `INSERT INTO messenger.messages (id, key, payload) SELECT id, left(id, 1), $2 FROM unnest($1::text[]) AS i (id)`,
          [ids, payload],
        );
      await add(old, 'a:1', 'b:1', 'c:1');
      await old.relay({ pages: 1, pageSize: 1 });
      const moved = await Outbox.at(await newDatabase(server.url()), { jsonPayload });
      await copyLogically(await old.session(), moved.pool, { sequence: false });
      await publish(moved);
      // With the number of a copied message, so it is stored again.
      await add(moved, 'd:1');
      const replica = await subscribed(server, moved, await migrationScript({ partitions: 3, jsonPayload }));
      await replica.follows();
      await expect(moved.relay()).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
      expect(await moved.store.admin.rebase()).toMatchObject({ moved: true, destinations: [{ undelivered: 3 }] });
      await replica.follows();
      await add(moved, 'a:2');
      expect(await moved.relay()).toEqual(['b:1', 'c:1', 'd:1', 'a:2']);
      await replica.follows();
    },
  );

  it('tables of the previous version are migrated while they are published, and their subscriber follows', async () => {
    const outbox = await Outbox.at(await newDatabase(server.url()), {}, false);
    const script = await migrationScript({ partitions: 3 });
    const before = `${script.slice(0, script.indexOf('\n-- 0009_'))}\nCOMMIT`;
    await outbox.pool.query(before);
    await publish(outbox);
    const replica = await subscribed(server, outbox, before);
    await replica.follows();
    // The subscriber first. The publisher sends the record of the migrations, which would otherwise arrive twice.
    await replica.run(await migrationScript({ partitions: 3, from: 8 }));
    const files = (await readdir('migrations/postgres')).filter((file) => file >= '0009');
    expect(await outbox.store.migrate()).toEqual(files);
    await outbox.add('a:1', 'b:1');
    expect(await outbox.relay({ pageSize: 1 })).toHaveLength(2);
    await replica.follows();
  });
});

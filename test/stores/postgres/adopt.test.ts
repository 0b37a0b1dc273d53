/** Imports the table of the Go module messenger, as its versions create it, without losing or repeating a message. */
import { describe, expect, it } from 'vitest';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, mutantText, type World } from './support.js';

/**
 * The statement with which the module creates its table: with text, or with its JSON option; older versions without a
 * time zone.
 */
const ddl = (
  table: string,
  payload: 'TEXT' | 'JSONB' = 'TEXT',
  time = 'TIMESTAMPTZ',
) => `CREATE TABLE IF NOT EXISTS ${table} (
			id UUID PRIMARY KEY,
			metadata JSONB NOT NULL,
			payload ${payload},
			published BOOLEAN DEFAULT FALSE,
			created_at ${time} NOT NULL DEFAULT NOW()
		)`;

const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

/** Stores a message as the module does. */
function store(
  table: string,
  n: number,
  { payload = `p${String(n)}`, published = false, metadata = '{}', at = n } = {},
): [string, unknown[]] {
  const text = `INSERT INTO ${table} (id, metadata, payload, published, created_at) VALUES ($1, $2, $3, $4, to_timestamp($5::float8))`;
  return [text, [uuid(n), metadata, payload, published, 1.7e9 + at]];
}

async function table(world: World, ...options: [('TEXT' | 'JSONB')?, string?]): Promise<string> {
  const name = `${world.names.schema}.old`;
  await world.sql(ddl(name, ...options));
  return name;
}

const from = (world: World) => ({ schema: world.names.schema, table: 'old' });

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  const url = createDatabase(version, `adopt_${String(version)}_${String(process.pid)}`);
  const inNew = async <T>(play: (world: World) => Promise<T>, options = {}) => inWorld(play, await url, {}, options);

  it('imports unpublished messages in order, and later ones with a second run', async () => {
    await inNew(async (world) => {
      const old = await table(world);
      // Stored in another order than they were created in. One is stored by hand, without saying whether it is
      // published.
      for (const n of [3, 1, 2])
        await world.sql(...store(old, n, { metadata: `{"group":"k","type":"t","n":"${String(n)}"}` }));
      await world.sql(...store(old, 4, { published: true }));
      await world.sql(...store(old, 5, { metadata: 'null', payload: 'grüße' }));
      await world.sql(`INSERT INTO ${old} VALUES ($1, '{}', 'by hand', NULL, to_timestamp(1.7e9 + 6))`, [uuid(6)]);
      await world.add('before');
      expect(await world.store.admin.importFromGo({ ...from(world), key: 'group', topic: 'type' })).toBe(5);
      expect(await world.store.admin.importFromGo(from(world))).toBe(0);
      expect(await world.value(`SELECT count(*)::int FROM ${old} WHERE published`)).toBe(6);
      const relay = await world.relay();
      const { messages } = await relay.read();
      expect(messages.map(({ id }) => id)).toEqual(['before', ...[1, 2, 3, 5, 6].map(uuid)]);
      expect(messages[1]).toMatchObject({
        key: 'k',
        topic: 't',
        metadata: { group: 'k', type: 't', n: '1' },
        at: new Date(1.7e12 + 1_000),
      });
      expect(messages[4]).toMatchObject({ key: undefined, topic: undefined, metadata: {} });
      expect(messages.map(({ payload }) => Buffer.from(payload).toString())).toEqual([
        'before',
        'p1',
        'p2',
        'p3',
        'grüße',
        'by hand',
      ]);
      // An old writer that is not replaced yet.
      await world.sql(...store(old, 7));
      expect(await world.store.admin.importFromGo(from(world))).toBe(1);
    });
  });

  it('keeps the order of many messages', async () => {
    await inNew(async (world) => {
      const old = await table(world);
      await world.sql(
        `INSERT INTO ${old} SELECT gen_random_uuid(), '{}', n::text, false, to_timestamp(1.7e9 + n) FROM generate_series(1, 5000) n ORDER BY random()`,
      );
      await world.sql(`ANALYZE ${old}`);
      expect(await world.store.admin.importFromGo(from(world))).toBe(5_000);
      const rows = await world.sql(
        `SELECT convert_from(payload, 'UTF8')::int FROM ${world.names.messages} ORDER BY seq`,
      );
      expect(rows.map(([n]) => n)).toEqual(Array.from({ length: 5_000 }, (_, n) => n + 1));
    });
  });

  it.each([
    ['TEXT', 'TIMESTAMP', false],
    ['JSONB', 'TIMESTAMPTZ', false],
    ['TEXT', 'TIMESTAMPTZ', true],
    ['JSONB', 'TIMESTAMP', true],
  ] as const)('takes payloads of %s with %s over, jsonPayload: %s', async (payload, time, jsonPayload) => {
    await inNew(
      async (world) => {
        const old = await table(world, payload, time);
        await world.sql(...store(old, 1, { payload: '{"a": 1}' }));
        expect(await world.store.admin.importFromGo(from(world))).toBe(1);
        const { messages } = await (await world.relay()).read();
        expect(Buffer.from(messages[0]!.payload).toString()).toBe('{"a": 1}');
      },
      { jsonPayload },
    );
  });

  it('waits for transactions that are storing there, and misses none of their messages', async () => {
    const play = async (world: World, waits: boolean) => {
      const old = await table(world);
      const writer = await world.begin();
      await writer.query(...store(old, 1));
      const adopting = world.store.admin.importFromGo(from(world));
      if (waits) await world.waiting('any');
      else await adopting;
      await writer.commit();
      return adopting;
    };
    expect(await inWorld((world) => play(world, true), await url)).toBe(1);
    const mutant = mutantText('adopt_lock', 'SHARE ROW EXCLUSIVE', 'ACCESS SHARE');
    expect(await inWorld((world) => play(world, false), await url, mutant)).toBe(0);
  });

  it('imports each message once, even with two imports at once', async () => {
    await inNew(async (world) => {
      const old = await table(world);
      await world.sql(...store(old, 1));
      await world.sql(...store(old, 2));
      const taken = await Promise.all([
        world.store.admin.importFromGo(from(world)),
        world.another().admin.importFromGo(from(world)),
      ]);
      expect(taken.sort()).toEqual([0, 2]);
      expect(await world.value(`SELECT count(*)::int FROM ${world.names.messages}`)).toBe(2);
    });
  });

  it('imports all messages or none, and names a row that is not a message', async () => {
    await inNew(async (world) => {
      const old = await table(world);
      await world.sql(...store(old, 1));
      const wrong = [{ payload: '' }, { payload: null as never }, { metadata: '{"a":1}' }, { metadata: '[]' }];
      for (const row of wrong) {
        await world.sql(...store(old, 2, row));
        await expect(world.store.admin.importFromGo(from(world)), JSON.stringify(row)).rejects.toMatchObject({
          code: 'CONFLICT',
          message: expect.stringContaining(uuid(2)) as string,
        });
        await world.sql(`DELETE FROM ${old} WHERE id = $1`, [uuid(2)]);
      }
      // A published message does not matter.
      await world.sql(...store(old, 2, { payload: '', published: true }));
      expect(await world.store.admin.importFromGo(from(world))).toBe(1);
    });
    await inNew(
      async (world) => {
        await world.sql(...store(await table(world), 1, { payload: 'no JSON' }));
        await expect(world.store.admin.importFromGo(from(world))).rejects.toMatchObject({ code: 'CONFLICT' });
        expect(await world.value(`SELECT count(*)::int FROM ${world.names.schema}.old WHERE published`)).toBe(0);
      },
      { jsonPayload: true },
    );
  });

  it('imports nothing if a key is too long for the tables, and names its message', async () => {
    await inNew(async (world) => {
      const old = await table(world);
      const keep = (n: number, group: string) => world.sql(...store(old, n, { metadata: JSON.stringify({ group }) }));
      await keep(1, 'k');
      await keep(2, '名'.repeat(666));
      await keep(3, '名'.repeat(667));
      await expect(world.store.admin.importFromGo({ ...from(world), key: 'group' })).rejects.toMatchObject({
        code: 'CONFLICT',
        message: expect.stringMatching(
          new RegExp(`"group", has more than 2000 bytes.* The first are ${uuid(3)}$`),
        ) as string,
      });
      expect(await world.value(`SELECT count(*)::int FROM ${old} WHERE published`)).toBe(0);
      // As metadata it may be of any length.
      expect(await world.store.admin.importFromGo(from(world))).toBe(3);
    });
  });

  it('refuses a missing or different table', async () => {
    await inNew(async (world) => {
      const { store: outbox, names } = world;
      for (const options of [
        { schema: names.schema },
        { schema: names.schema, table: 'gone' },
        { schema: 'it"s', table: "o'" },
      ]) {
        await expect(outbox.admin.importFromGo(options)).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
      }
      await expect(outbox.admin.importFromGo({ table: '' })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
      await expect(outbox.admin.importFromGo({ tabel: 'x' } as never)).rejects.toMatchObject({
        code: 'INVALID_OPTION',
      });
    });
  });
});

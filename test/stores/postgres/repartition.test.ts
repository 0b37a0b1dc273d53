/** The number of partitions changes between relays, never under one, and no message is lost or repeated. */
import { describe, expect, it } from 'vitest';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, TestRelay, type World } from './support.js';

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  const url = createDatabase(version, `repartition_${String(version)}_${String(process.pid)}`);
  const inNew = async <T>(play: (world: World) => Promise<T>) => inWorld(play, await url);

  it.each([1, 3, 8, 100, 1_024])(
    '8 partitions become %i, and everything continues where it was',
    async (partitions) => {
      await inNew(async (world) => {
        const { store, names } = world;
        await store.admin.addDestination('behind', { from: 'beginning' });
        await world.add(...Array.from({ length: 20 }, (_, n) => `k${String(n)}:1`));
        const before = await world.relay({ pageSize: 7 });
        const t = await world.begin();
        await t.add('t');
        // In the middle of a window.
        await before.poll();
        await before.close();
        await store.admin.repartition(partitions);
        expect(await world.value(`SELECT value FROM ${names.settings} WHERE name = 'partitions'`)).toBe(
          String(partitions),
        );
        expect((await store.admin.destinations()).map((each) => each.partitions)).toEqual([partitions, partitions]);
        await t.commit();
        const again = world.another({ partitions });
        const after = await TestRelay.open(again, { pageSize: 7 }, before.acknowledged);
        await after.drain();
        await after.close();
        expect(after.acknowledged).toEqual([...Array.from({ length: 20 }, (_, n) => `k${String(n)}:1`), 't']);
        const behind = await TestRelay.open(again, { destination: 'behind' });
        await behind.drain();
        expect(behind.acknowledged).toHaveLength(21);
        await behind.close();
        await again.admin.repartition(8);
      });
    },
  );

  it('refuses relays with the old number, even those that knew the tables before', async () => {
    await inNew(async (world) => {
      const { store } = world;
      await (await world.relay()).close();
      await store.admin.repartition(3);
      for (const each of [store, world.another()]) {
        await expect(each.openFeed({ destination: 'default', pageSize: 1 })).rejects.toMatchObject({
          code: 'SCHEMA_MISMATCH',
          message: expect.stringMatching(/partitions/) as string,
        });
      }
    });
  });

  it('is refused and changes nothing while something is in the way, and says what', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const facts = () =>
        world.sql(
          `SELECT c::text, value FROM ${names.cursors} c, ${names.settings} WHERE name = 'partitions' ORDER BY 1`,
        );
      const refuses = async (message: RegExp) => {
        const before = await facts();
        await expect(store.admin.repartition(4)).rejects.toMatchObject({
          code: 'CONFLICT',
          message: expect.stringMatching(message) as string,
        });
        expect(await facts()).toEqual(before);
      };
      const relay = await world.relay({ acknowledge: ({ id }) => id !== 'a:1' });
      await refuses(/a relay works on destination "default".*stop every relay/);
      await world.add('a:1');
      await relay.poll();
      await relay.close();
      await refuses(/messages of destination "default" are waiting to be retried/);
      await world.sql(`UPDATE ${names.parked} SET dead_at = now()`);
      await world.sql(`INSERT INTO ${names.relays} VALUES ('default', 'r', now() + interval '1 minute')`);
      await refuses(/a relay works on/);
      await world.sql(`DELETE FROM ${names.relays}`);
      await world.sql(
        `UPDATE ${names.cursors} SET high = high + 1, written_by = pg_current_xact_id() WHERE partition = 2`,
      );
      await refuses(/not been read up to the same position: let a single relay run/);
      await world.sql(
        `UPDATE ${names.cursors} SET high = high - 1, written_by = pg_current_xact_id() WHERE partition = 2`,
      );
      await world.sql(`UPDATE ${names.cursors} SET written_by = '3' WHERE partition = 2`);
      await expect(store.admin.repartition(4)).rejects.toMatchObject({
        code: 'SCHEMA_MISMATCH',
        message: expect.stringMatching(/not written by this database cluster.*`messenger rebase/) as string,
      });
      await world.sql(`UPDATE ${names.cursors} SET written_by = pg_current_xact_id() WHERE partition = 2`);
      const settling = await world.begin();
      await settling.query(`UPDATE ${names.cursors} SET written_by = written_by WHERE partition = 2`);
      await refuses(/a relay is running: stop every relay/);
      await settling.query('ROLLBACK');
      for (const wrong of [0, 1_025, 1.5, NaN]) {
        await expect(store.admin.repartition(wrong)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
      }
      // A dead letter is nobody's turn.
      await store.admin.repartition(4);
      const again = world.another({ partitions: 4 });
      expect(await again.admin.requeue({ all: true })).toBe(1);
      const last = await TestRelay.open(again);
      await last.drain();
      expect(last.acknowledged).toEqual(['a:1']);
      await last.close();
    });
  });

  it('fences a relay that slept through the end of its lease', async () => {
    await inNew(async (world) => {
      await world.add('a:1');
      const relay = await world.relay();
      const page = await relay.read();
      await world.expireLease();
      await world.store.admin.repartition(8);
      await expect(relay.settle(page)).rejects.toMatchObject({ code: 'LEASE_LOST' });
    });
  });
});

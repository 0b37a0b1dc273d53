/** Messages exist exactly when their transaction commits, whatever kind of transaction it is. */
import { beforeAll, describe, expect, it } from 'vitest';
import { postgresVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld } from './support.js';

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'hazards_transactions');
  });

  it('delivers no message of a transaction that is open or rolled back', () =>
    inWorld(async (world) => {
      const relay = await world.relay();
      const [open, failed] = [await world.begin(), await world.begin()];
      await open.add('open');
      await failed.add('failed');
      await world.add('m');
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m']);
      await failed.query('ROLLBACK');
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m']);
      await open.commit();
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m', 'open']);
    }, url));

  it('delivers the messages of savepoints that were not rolled back, when the transaction commits', () =>
    inWorld(async (world) => {
      const relay = await world.relay({ pageSize: 2 });
      const t = await world.begin();
      // The first id of the transaction is drawn inside a savepoint.
      await t.query('SAVEPOINT one');
      await t.add('k:1');
      await t.query('SAVEPOINT two');
      await t.add('k:rolled back');
      await t.query('ROLLBACK TO two');
      await t.add('k:2');
      await world.add('m1');
      await relay.drain();
      await t.query('RELEASE one');
      await t.query('SAVEPOINT three');
      await t.add('k:also rolled back');
      await t.query('ROLLBACK TO three');
      await t.add('k:3');
      await world.add('m2');
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m1', 'm2']);
      await relay.reopen();
      await t.commit();
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m1', 'm2', 'k:1', 'k:2', 'k:3']);
    }, url));

  it('delivers the messages of a prepared transaction when it is committed, however much later', () =>
    inWorld(async (world) => {
      const relay = await world.relay({ pageSize: 1 });
      const { schema } = world.names;
      for (const outcome of ['commit', 'rollback']) {
        const t = await world.begin();
        await t.add(outcome);
        await t.query(`PREPARE TRANSACTION '${version} ${schema} ${outcome}'`);
      }
      await world.add('m1', 'm2');
      await relay.drain();
      await relay.reopen();
      await world.add('m3');
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m1', 'm2', 'm3']);
      await world.sql(`COMMIT PREPARED '${version} ${schema} commit'`);
      await world.sql(`ROLLBACK PREPARED '${version} ${schema} rollback'`);
      await relay.drain();
      expect(relay.acknowledged).toEqual(['m1', 'm2', 'm3', 'commit']);
    }, url));
});

/** What relays share: a store, a destination's rows, the tables with their retention, a connection. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { FatalError } from '../../../src/core/errors.js';
import type { FeedOptions } from '../../../src/core/contracts/feed.js';
import type { Message } from '../../../src/core/contracts/message.js';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { PostgresStore } from '../../../src/stores/postgres/store.js';
import type { PostgresStoreOptions } from '../../../src/stores/postgres/options.js';
import { until } from '../../../src/testing/conformance/assert.js';
import { FAST, recordingLogger, scripted, started } from '../../core/scripted.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, type World } from './support.js';

/** The store of a world as an application has it: its errors are of the classes that the engine knows. */
const storeOf = (world: World, options: PostgresStoreOptions = {}): PostgresStore =>
  new PostgresStore(world.pool, { schema: world.names.schema, ...options });

describe.each(outermostVersions)('on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'shared');
  });

  it('a relay that loses one of its partitions leaves the others free', () =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      // Each settlement in one round trip, but for the first: nothing of it is taken back.
      const store = storeOf(world);
      for (let n = 1; n <= 20; n++) await world.add(`k${n}:1`);
      const feed = await store.openFeed({ destination: 'default', pageSize: 5 });
      expect(feed).not.toBeNull();
      for (let page = 0; page < 3; page++) await feed!.settle(await feed!.read(), []);
      const page = await feed!.read();
      await world.sql(
        `UPDATE ${cursors} SET owner = 'thief', epoch = epoch + 1, written_by = pg_current_xact_id() WHERE partition = 0`,
      );
      await expect(feed!.settle(page, [])).rejects.toMatchObject({ code: 'LEASE_LOST' });
      await feed!.close();
      expect(await world.sql(`SELECT partition::int, owner FROM ${cursors} WHERE owner IS NOT NULL`)).toEqual([
        [0, 'thief'],
      ]);
    }, url));

  it('a relay that is stopped while it starts does not stop another from starting on the same store', () =>
    inWorld(async (world) => {
      await world.add('k:1');
      // Both wait for one look at the tables.
      const blocker = await world.begin();
      await blocker.query(`LOCK TABLE ${world.names.settings}`);
      const store = storeOf(world);
      const errorLogger = recordingLogger();
      const publishers = { first: scripted(), second: scripted() };
      const relayTo = (destination: keyof typeof publishers) =>
        started(new Messenger(store, publishers[destination], { ...FAST, destination, errorLogger }));
      const first = relayTo('first');
      await world.waiting('any');
      const second = relayTo('second');
      await sleep(20);
      const stopped = first.stop();
      await sleep(20);
      await blocker.commit();
      await stopped;
      await Promise.race([until(() => publishers.second.acknowledged.length > 0, 'a message'), second.ended]);
      await second.stop();
      expect(publishers).toMatchObject({ first: { sent: [] }, second: { acknowledged: [expect.any(String)] } });
      expect(errorLogger.errors).toEqual([]);
    }, url));

  it('a relay that stands by locks no row', () =>
    inWorld(async (world) => {
      await world.relay();
      const { cursors } = world.names;
      const session = await world.session();
      // A row shows the last transaction that locked it.
      const lockers = () => world.sql(`SELECT xmax::text FROM ${cursors} ORDER BY partition`);
      const lockedBy = await lockers();
      const lock = `SELECT FROM ${cursors} FOR UPDATE NOWAIT`;
      const standby = storeOf(world);
      let polls = 0;
      const polling = {
        messages: (batch: number) => standby.messages(batch),
        published: (...messages: readonly Message[]) => standby.published(...messages),
        deletePublishedByExpiration: (age: number) => standby.deletePublishedByExpiration(age),
        openFeed: async (options: FeedOptions) => {
          const feed = await standby.openFeed(options);
          polls += 1;
          return feed;
        },
      };
      const errorLogger = recordingLogger();
      const relay = started(new Messenger(polling, scripted(), { ...FAST, errorLogger }));
      await until(() => polls > 3, 'some polls');
      expect(await lockers()).toEqual(lockedBy);
      // It is never in the way of another relay.
      for (let n = 0; n < 200; n++) await session.query(`BEGIN; ${lock}; ROLLBACK`);
      // And another never holds it up.
      await session.query(`BEGIN; ${lock}`);
      const before = polls;
      await until(() => polls > before + 5, 'polls while the rows are locked', 5_000);
      await session.query('ROLLBACK');
      await relay.stop();
      expect(errorLogger.errors).toEqual([]);
    }, url));

  it('a clean-up longer than the retention of the tables makes start() reject, and say so', () =>
    inWorld(
      async (world) => {
        const errorLogger = recordingLogger();
        const store = storeOf(world, { retention: 60_000 });
        const messenger = new Messenger(store, scripted(), { ...FAST, cleanUp: 3_600_000, errorLogger });
        const relay = started(messenger);
        const ended = await Promise.race([
          relay.ended.catch((error: unknown) => error),
          sleep(10_000, 'still running'),
        ]);
        if (ended === 'still running') await relay.stop();
        expect(ended).toBeInstanceOf(FatalError);
        expect(ended).toMatchObject({
          message: expect.stringMatching(
            /cannot be used: .*3600000 ms is longer than the 60000 ms.*retention/,
          ) as string,
          cause: { code: 'INVALID_OPTION' },
        });
        expect(errorLogger.errors).toEqual([]);
        // The destination is given back.
        expect(await world.value(`SELECT count(owner)::int FROM ${world.names.cursors}`)).toBe(0);
      },
      url,
      undefined,
      { retention: 60_000 },
    ));

  it('a client whose connection the server ends raises no uncaught error', () =>
    inWorld(async (world) => {
      const uncaught: unknown[] = [];
      const listener = (error: unknown) => void uncaught.push(error);
      process.on('uncaughtException', listener);
      onTestFinished(() => void process.off('uncaughtException', listener));
      // No listener of its own: an application that passes its client on does not listen to it.
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const store = new PostgresStore(client, { schema: world.names.schema });
      await world.add('k:1');
      expect(await store.messages(10)).toHaveLength(1);
      const { processID } = client as unknown as { processID: number };
      let over = false;
      client.once('end', () => (over = true));
      await world.sql('SELECT pg_terminate_backend($1)', [processID]);
      await Promise.race([
        until(() => over, 'the end of the connection'),
        until(() => uncaught.length > 0, 'an error'),
      ]);
      await sleep(20);
      expect(uncaught).toEqual([]);
      await expect(store.messages(10)).rejects.toThrow();
      await store.close();
    }, url));
});

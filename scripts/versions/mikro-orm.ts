import assert from 'node:assert/strict';
import { EntitySchema, MikroORM } from '@mikro-orm/postgresql';
import { mikroOrmBridge } from 'messenger-outbox/mikro-orm';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from './round-trip.js';

const Order = new EntitySchema<{ id: string }>({ name: 'Order', properties: { id: { type: 'text', primary: true } } });

const pool = new pg.Pool({ connectionString: url });
const orm = await MikroORM.init({ clientUrl: url, entities: [Order] });
const bridge = mikroOrmBridge();
const store = new PostgresStore(pool, { bridge });
await roundTrip(store, {
  writes: (text, end) =>
    orm.em.fork().transactional(async (em) => {
      await em.transactional((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it is no em
  mistake: () => store.add(orm, 'never'),
});

// MikroORM 6 and older, which run on Knex, tell of the commit of the outermost transaction, and when one is over.
const runsOnKnex = 'getKnex' in orm.em;
const told: string[] = [];
const ended = await orm.em.fork().transactional(async (em) => {
  await em.transactional(async (inner) => bridge.onCommit?.(inner, () => told.push('committed')));
  await em.execute('SELECT 1');
  assert.deepEqual(told, []);
  return em;
});
assert.deepEqual(told, runsOnKnex ? ['committed'] : []);
assert.equal(
  bridge.refusalOf?.(ended),
  runsOnKnex ? 'this MikroORM transaction has ended: store before it commits or rolls back' : undefined,
);
await orm.close();
await pool.end();

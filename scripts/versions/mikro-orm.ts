import { EntitySchema, MikroORM } from '@mikro-orm/postgresql';
import { mikroOrmBridge } from 'messenger-outbox/mikro-orm';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from './round-trip.js';

const Order = new EntitySchema<{ id: string }>({ name: 'Order', properties: { id: { type: 'text', primary: true } } });

const pool = new pg.Pool({ connectionString: url });
const orm = await MikroORM.init({ clientUrl: url, entities: [Order] });
const store = new PostgresStore(pool, { bridge: mikroOrmBridge() });
await roundTrip(store, {
  writes: (text, end) =>
    orm.em.fork().transactional(async (em) => {
      await em.transactional((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it is no em
  mistake: () => store.add(orm, 'never'),
});
await orm.close();
await pool.end();

import knex from 'knex';
import { knexBridge } from 'messenger-outbox/knex';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from './round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const db = knex.default({ client: 'pg', connection: url });
const store = new PostgresStore(pool, { bridge: knexBridge() });
await roundTrip(store, {
  writes: (text, end) =>
    db.transaction(async (trx) => {
      await trx.transaction((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(db, 'never'),
});
await db.destroy();
await pool.end();

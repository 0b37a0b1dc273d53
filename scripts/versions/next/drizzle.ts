import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { drizzleBridge } from 'messenger-outbox/drizzle';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from '../round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const db = drizzle({ client: pool });
const store = new PostgresStore(pool, { bridge: drizzleBridge(sql) });
await roundTrip(store, {
  writes: (text, end) =>
    db.transaction(async (tx) => {
      await tx.transaction((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(db, 'never'),
});
await pool.end();

import { CompiledQuery, Kysely, PostgresDialect } from 'kysely';
import { kyselyBridge } from 'messenger-outbox/kysely';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from './round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const db = new Kysely<{ orders: { id: string } }>({ dialect: new PostgresDialect({ pool }) });
const store = new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) });
await roundTrip(store, {
  writes: (text, end) =>
    db.transaction().execute(async (trx) => {
      await store.add(trx.withSchema('public'), text);
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(db, 'never'),
});
await db.destroy();

import { PostgresStore } from 'messenger-outbox/postgres';
import postgres from 'postgres';
import { roundTrip, url } from './round-trip.js';

const sql = postgres(url, { onnotice: () => undefined });
const store = new PostgresStore(sql);
await roundTrip(store, {
  writes: (text, end) =>
    sql.begin(async (tx) => {
      await tx.savepoint((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(sql, 'never'),
});
await sql.end();

import { PGlite } from '@electric-sql/pglite';
import { PostgresStore } from 'messenger-outbox/postgres';
import { roundTrip } from './round-trip.js';

const db = new PGlite();
const store = new PostgresStore(db);
await roundTrip(store, {
  writes: (text, end) =>
    db.transaction(async (tx) => {
      await store.add(tx, text);
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(db, 'never'),
});
await db.close();

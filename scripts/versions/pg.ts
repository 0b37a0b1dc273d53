import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { roundTrip, url } from './round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const store = new PostgresStore(pool);
await roundTrip(store, {
  writes: async (text, end) => {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      await store.add(client, text);
      end();
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  },
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(pool, 'never'),
});

// Its transaction is over, which it tells, or the store has heard.
const client = await pool.connect();
await roundTrip(new PostgresStore(pool, { schema: 'ended' }), {
  writes: async (text, end) => {
    await client.query('BEGIN');
    try {
      await new PostgresStore(pool, { schema: 'ended' }).add(client, text);
      end();
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    }
  },
  mistake: () => store.add(client, 'never'),
});
client.release();
await pool.end();

import { neon, neonConfig, Pool } from '@neondatabase/serverless';
import { PostgresStore } from 'messenger-outbox/postgres';
import { WebSocket } from 'ws';
import { roundTrip, url } from './round-trip.js';

const { NEON_PROXY: proxy = '' } = process.env;
neonConfig.webSocketConstructor = WebSocket;
neonConfig.useSecureWebSocket = false;
neonConfig.pipelineConnect = false;
neonConfig.wsProxy = () => proxy;
neonConfig.fetchEndpoint = () => `http://${proxy}/sql`;

const pool = new Pool({ connectionString: url });
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

const sql = neon(url);
const overHttp = new PostgresStore(pool, { schema: 'over_http' });
await roundTrip(overHttp, {
  writes: async (text, end) => {
    const { text: query, values } = overHttp.statement(text);
    end();
    await sql.transaction([sql`SELECT 1`, sql.query(query, values)]);
  },
  // @ts-expect-error it commits every query by itself
  mistake: () => overHttp.add(sql, 'never'),
});
await pool.end();

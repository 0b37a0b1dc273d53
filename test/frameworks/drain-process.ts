/**
 * A serverless function in a process of its own, which a test freezes. It drains once: `node --import tsx
 * drain-process.ts URL`. It prints `publishing` when it starts to publish, publishes nothing before it reads a line,
 * and finally prints the result.
 */
import { once } from 'node:events';
import pg from 'pg';
import { z } from 'zod';
import { drainHandler } from '../../src/frameworks/serverless.js';
import { defineOutbox } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';

const pool = new pg.Pool({ connectionString: process.argv[2] });
pool.on('error', () => undefined);
const outbox = defineOutbox({
  store: new PostgresStore(pool, { lease: 1_000 }),
  topics: { 'order.created': { schema: z.object({ id: z.string() }) } },
});
const handler = drainHandler(outbox, {
  authorize: () => true,
  errorLogger: { error: () => undefined },
  publisher: {
    async publish() {
      console.log('publishing');
      await once(process.stdin, 'data');
    },
  },
});
const response = await handler(new Request('https://shop.example/cron'));
console.log(`answered ${String(response.status)}`);
process.stdin.destroy();
await pool.end();

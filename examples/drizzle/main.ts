import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { broker } from './broker.js';
import { createTables, pool } from './database.js';
import { outbox } from './outbox.js';
import { server } from './server.js';

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    stop.abort();
  });
}

await createTables();
await outbox.migrate();
const relay = await outbox.relay({ publisher: broker, cleanUp: 24 * 60 * 60 * 1000, signal: stop.signal });

await once(server.listen(Number(process.env['PORT'] ?? 3000)), 'listening');
console.log(`listening on http://localhost:${String((server.address() as AddressInfo).port)}`);

// Until a signal comes, or the relay cannot go on: then this throws.
await relay.ended;
server.close();
await pool.end();

/**
 * A shop on Drizzle: POST /orders writes an order and its message in one transaction, and a relay publishes it.
 * What the outbox adds is outbox.ts, and the lines that are marked.
 *
 *     DATABASE_URL=postgres://… npx tsx examples/drizzle/main.ts
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';
import type { Message } from 'messenger-outbox';
import { db, Order, orders, pool } from './database.js';
import { outbox } from './outbox.js'; // outbox

/** In place of a broker: any `{ publish }` is a publisher, as those of the package are. */
const publisher = {
  publish({ topic, key, payload }: Message) {
    console.log(`published ${topic} of ${key}: ${Buffer.from(payload).toString()}`);
    return Promise.resolve();
  },
};

async function placeOrder(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const order = Order.safeParse(await json(request).catch(() => undefined));
  if (!order.success) {
    response.writeHead(400).end();
    return;
  }
  try {
    await db.transaction(async (tx) => {
      await outbox.send(tx, 'order.created', order.data); // outbox
      await tx.insert(orders).values(order.data);
    });
    response.writeHead(201).end();
  } catch {
    response.writeHead(409).end();
  }
}

await pool.query('CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, total integer NOT NULL CHECK (total > 0))');
await outbox.migrate(); // outbox
const relay = await outbox.relay({ publisher, cleanUp: 60 * 60 * 1000 }); // outbox
const server = createServer((request, response) => void placeOrder(request, response));
server.listen(Number(process.env['PORT'] ?? 0), '127.0.0.1', () => {
  console.log(`listening on ${JSON.stringify(server.address())}`);
});

async function stop(): Promise<void> {
  server.close();
  await relay.stop(); // outbox
  await pool.end();
}
process.once('SIGTERM', () => void stop());

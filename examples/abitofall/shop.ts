import { setTimeout as sleep } from 'node:timers/promises';
import { newMessage } from 'messenger-outbox';
import type { PostgresStore } from 'messenger-outbox/postgres';
import type { Pool, PoolClient } from 'pg';

/** What an order's message says. */
export interface OrderCreated {
  readonly customer: string;
  /** Counts the orders of one customer. */
  readonly number: number;
  readonly cents: number;
}

export interface WriteOptions {
  /** How many orders to write; those that are rolled back come on top. */
  readonly orders: number;
  /** The longest pause between two checkouts of one writer, in milliseconds. */
  readonly pause: number;
  readonly signal: AbortSignal;
}

export interface Shop {
  /** Writes orders with their messages, by several writers at once. */
  write(options: WriteOptions): Promise<void>;
  readonly rolledBack: number;
}

const WRITERS = 8;
const CUSTOMERS = 40;

/** Creates the tables: the shop's own, and those of the outbox beside them. */
export async function openShop(pool: Pool, store: PostgresStore): Promise<Shop> {
  await store.migrate();
  await pool.query(`
    CREATE TABLE customers (name text PRIMARY KEY, orders integer NOT NULL DEFAULT 0);
    CREATE TABLE orders (
      message_id text PRIMARY KEY,
      customer text NOT NULL REFERENCES customers,
      number integer NOT NULL,
      cents integer NOT NULL,
      UNIQUE (customer, number)
    );
    INSERT INTO customers SELECT 'customer-' || n FROM generate_series(1, ${String(CUSTOMERS)}) AS n;`);

  let checkouts = 0;
  let rolledBack = 0;

  async function write({ orders, pause, signal }: WriteOptions): Promise<void> {
    let open = orders;
    await Promise.all(
      Array.from({ length: WRITERS }, async () => {
        while (open > 0 && !signal.aborted) {
          checkouts += 1;
          const declined = checkouts % 10 === 0;
          const size = Math.min(open, upTo(3));
          if (!declined) open -= size;
          await checkout(pool, store, { size, declined, slow: checkouts % 50 === 1 });
          if (declined) rolledBack += 1;
          if (pause > 0) await sleep(upTo(2 * pause), undefined, { signal }).catch(() => undefined);
        }
      }),
    );
  }

  return {
    write,
    get rolledBack() {
      return rolledBack;
    },
  };
}

class PaymentDeclined extends Error {}

/** One transaction: some orders of one customer, and a message for each. All of it happens, or nothing. */
async function checkout(
  pool: Pool,
  store: PostgresStore,
  { size, declined, slow }: { size: number; declined: boolean; slow: boolean },
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const orders = await insertOrders(client, `customer-${String(upTo(CUSTOMERS))}`, size);
    const messages = orders.map((order) =>
      newMessage(JSON.stringify(order), { topic: 'order.created', key: order.customer }),
    );
    await store.add(client, messages);
    for (const [i, { id }] of messages.entries()) {
      const { customer, number, cents } = orders[i]!;
      await client.query('INSERT INTO orders VALUES ($1, $2, $3, $4)', [id, customer, number, cents]);
    }
    // Other transactions commit meanwhile, with later messages: this one is late, and must not be missed.
    if (slow) await sleep(300);
    if (declined) throw new PaymentDeclined();
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    if (!(error instanceof PaymentDeclined)) throw error;
  } finally {
    client.release();
  }
}

/** Numbers the orders under the lock of the customer's row: the numbers are the order of the commits. */
async function insertOrders(client: PoolClient, customer: string, size: number): Promise<OrderCreated[]> {
  const { rows } = await client.query<{ last: number }>(
    'UPDATE customers SET orders = orders + $2 WHERE name = $1 RETURNING orders AS last',
    [customer, size],
  );
  const first = rows[0]!.last - size + 1;
  return Array.from({ length: size }, (_, i) => ({ customer, number: first + i, cents: upTo(20_000) }));
}

/** A random whole number from 1. */
function upTo(max: number): number {
  return 1 + Math.floor(Math.random() * max);
}

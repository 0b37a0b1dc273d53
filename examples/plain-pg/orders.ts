import { inTransaction } from './database.js';
import type { Order } from './order.js';
import { outbox } from './outbox.js';

export class SoldOut extends Error {}

export async function placeOrder(order: Order): Promise<void> {
  const { id, item, pieces } = order;
  await inTransaction(async (client) => {
    await client.query('INSERT INTO orders VALUES ($1, $2, $3)', [id, item, pieces]);
    await outbox.send(client, 'order.placed', order);
    const taken = await client.query('UPDATE stock SET pieces = pieces - $2 WHERE item = $1 AND pieces >= $2', [
      item,
      pieces,
    ]);
    // Takes the order back, and its message with it.
    if (taken.rowCount === 0) throw new SoldOut(`fewer than ${String(pieces)} of ${item} are left`);
  });
}

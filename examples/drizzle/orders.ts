import { and, eq, gte, sql } from 'drizzle-orm';
import { db, orders, stock } from './database.js';
import type { Order } from './order.js';
import { outbox } from './outbox.js';

export class SoldOut extends Error {}

export async function placeOrder(order: Order): Promise<void> {
  const { item, pieces } = order;
  await db.transaction(async (tx) => {
    await tx.insert(orders).values(order);
    await outbox.send(tx, 'order.placed', order);
    const taken = await tx
      .update(stock)
      .set({ pieces: sql`${stock.pieces} - ${pieces}` })
      .where(and(eq(stock.item, item), gte(stock.pieces, pieces)));
    // Takes the order back, and its message with it.
    if (taken.rowCount === 0) throw new SoldOut(`fewer than ${String(pieces)} of ${item} are left`);
  });
}

import { prisma } from './database.js';
import type { Order } from './order.js';
import { outbox } from './outbox.js';

export class SoldOut extends Error {}

export async function placeOrder(order: Order): Promise<void> {
  const { item, pieces } = order;
  await prisma.$transaction(async (tx) => {
    await tx.order.create({ data: order });
    await outbox.send(tx, 'order.placed', order);
    const taken = await tx.stock.updateMany({
      where: { item, pieces: { gte: pieces } },
      data: { pieces: { decrement: pieces } },
    });
    // Takes the order back, and its message with it.
    if (taken.count === 0) throw new SoldOut(`fewer than ${String(pieces)} of ${item} are left`);
  });
}

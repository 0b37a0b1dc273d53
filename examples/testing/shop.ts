import { defineOutbox, subscribe, type Subscriber } from 'messenger-outbox';
import { MemoryStore, type MemoryTransaction } from 'messenger-outbox/memory';
import { z } from 'zod';

/** What is tested: an application stores orders' messages, and bills what it is told of. */
export const Order = z.object({ id: z.string(), total: z.number() });
export type Order = z.infer<typeof Order>;

/** In memory, to be short: a PostgresStore is tested alike, in the transactions of your library. */
export const store = new MemoryStore();
export const outbox = defineOutbox({
  store,
  topics: { 'order.created': { schema: Order, key: ({ id }) => id } },
});

export async function placeOrder(tx: MemoryTransaction, order: Order): Promise<void> {
  await outbox.send(tx, 'order.created', order);
}

/** Totals by order. */
export const bills = new Map<string, number>();

/** Bills until the signal aborts. A message can come twice: it is billed once. */
export function billing(subscriber: Subscriber, signal: AbortSignal): Promise<void> {
  const handlers = { 'order.created': ({ id, total }: Order) => bills.set(id, total) };
  return subscribe(subscriber, { name: 'billing', topics: outbox.topics, handlers, signal });
}

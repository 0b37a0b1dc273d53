import { memoryBroker, outboxTesting } from 'messenger-outbox/testing';
import { expect, test } from 'vitest';
import { billing, bills, outbox, placeOrder, store } from '../shop.js';

const { expectStored, stored, drained } = outboxTesting(outbox);

test('an order is stored with its message', async () => {
  await store.transaction(async (tx) => {
    await placeOrder(tx, { id: 'order-1', total: 42 });
    await expectStored(tx, 'order.created', { id: 'order-1', total: expect.any(Number) as number });
    expect(await stored(tx)).toHaveLength(1);
  });
});

test('a relay publishes it', async () => {
  const published = await drained();
  expect(published.map(({ topic, payload }) => [topic, payload.id])).toEqual([['order.created', 'order-1']]);
});

test('it is billed once, although it comes twice', async () => {
  const broker = memoryBroker({ duplicates: 1 });
  const stop = new AbortController();
  const billed = billing(broker, stop.signal);
  await store.transaction((tx) => placeOrder(tx, { id: 'order-2', total: 7 }));
  await outbox.drain({ publisher: broker });
  await broker.idle();
  expect([...bills]).toEqual([['order-2', 7]]);
  stop.abort();
  await billed;
});

import assert from 'node:assert/strict';
import test from 'node:test';
import { memoryBroker, outboxTesting } from 'messenger-outbox/testing';
import { billing, bills, outbox, placeOrder, store } from '../shop.js';

const { expectStored, stored, drained } = outboxTesting(outbox);

test('an order is stored with its message', async () => {
  await store.transaction(async (tx) => {
    await placeOrder(tx, { id: 'order-1', total: 42 });
    await expectStored(tx, 'order.created', ({ id, total }) => id === 'order-1' && total > 0);
    assert.equal((await stored(tx)).length, 1);
  });
});

test('a relay publishes it', async () => {
  const published = await drained();
  assert.deepEqual(
    published.map(({ topic, payload }) => [topic, payload.id]),
    [['order.created', 'order-1']],
  );
});

test('it is billed once, although it comes twice', async () => {
  const broker = memoryBroker({ duplicates: 1 });
  const stop = new AbortController();
  const billed = billing(broker, stop.signal);
  await store.transaction((tx) => placeOrder(tx, { id: 'order-2', total: 7 }));
  await outbox.drain({ publisher: broker });
  await broker.idle();
  assert.deepEqual([...bills], [['order-2', 7]]);
  stop.abort();
  await billed;
});

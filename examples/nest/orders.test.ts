import 'reflect-metadata';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Test, type TestingModule } from '@nestjs/testing';
import { OUTBOX_HEALTH, type OutboxHealth } from 'messenger-outbox/nest';
import { outboxTesting } from 'messenger-outbox/testing';
import { AppModule } from './app.module';
import { pool } from './database';
import { OrdersService } from './orders.service';
import { outbox } from './outbox';

let app: TestingModule;
beforeAll(async () => {
  app = await Test.createTestingModule({ imports: [AppModule] }).compile();
  await app.init();
});
afterAll(() => app.close());

test('an order is stored with its message, and without it when it is rolled back', async () => {
  const { expectStored, stored } = outboxTesting(outbox);
  const client = await pool.connect();
  await client.query('BEGIN');
  const order = { id: 'order-1', item: 'chair', pieces: 2 };
  await app.get(OrdersService).placeIn(client, order);
  const { key } = await expectStored(client, 'order.placed', { id: 'order-1', pieces: expect.any(Number) });
  expect(key).toBe('chair');
  expect(await stored(client)).toHaveLength(1);
  await client.query('ROLLBACK');
  client.release();
});

test('a placed order is shipped', async () => {
  await app.get(OrdersService).place({ id: 'order-2', item: 'chair', pieces: 1 });
  const shipped = async () => (await pool.query<{ id: string }>('SELECT id FROM shipments')).rows;
  while ((await shipped()).length === 0);
  expect(await shipped()).toEqual([{ id: 'order-2' }]);
  expect(app.get<OutboxHealth>(OUTBOX_HEALTH).now()).toMatchObject({ ok: true, status: 'running' });
});

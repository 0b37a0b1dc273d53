import { Injectable } from '@nestjs/common';
import { onMessageOf } from 'messenger-outbox/nest';
import { broker } from './broker';
import { pool } from './database';
import type { Order } from './order';
import { outbox } from './outbox';

const OnMessage = onMessageOf(outbox.topics);

/** Who gets messages, and where from. */
export const subscribers = [{ name: 'shipping', subscriber: broker }];

@Injectable()
export class Shipping {
  @OnMessage('order.placed')
  async ship({ id }: Order): Promise<void> {
    // A message can come again: what it did already is left as it is.
    const { rowCount } = await pool.query('INSERT INTO shipments VALUES ($1) ON CONFLICT DO NOTHING', [id]);
    if (rowCount === 1) console.log(`shipped ${id}`);
  }
}

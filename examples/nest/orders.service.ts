import { Inject, Injectable } from '@nestjs/common';
import { OUTBOX } from 'messenger-outbox/nest';
import type { PoolClient } from 'pg';
import { inTransaction } from './database';
import type { Order } from './order';
import type { outbox } from './outbox';

export class SoldOut extends Error {}

@Injectable()
export class OrdersService {
  constructor(@Inject(OUTBOX) private readonly messages: typeof outbox) {}

  place(order: Order): Promise<void> {
    return inTransaction((client) => this.placeIn(client, order));
  }

  /** The same in a transaction that somebody else commits, or rolls back, as a test does. */
  async placeIn(client: PoolClient, order: Order): Promise<void> {
    const { id, item, pieces } = order;
    await client.query('INSERT INTO orders VALUES ($1, $2, $3)', [id, item, pieces]);
    await this.messages.send(client, 'order.placed', order);
    const taken = await client.query('UPDATE stock SET pieces = pieces - $2 WHERE item = $1 AND pieces >= $2', [
      item,
      pieces,
    ]);
    // Takes the order back, and its message with it.
    if (taken.rowCount === 0) throw new SoldOut(`fewer than ${String(pieces)} of ${item} are left`);
  }
}

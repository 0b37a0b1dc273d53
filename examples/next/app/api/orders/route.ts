import { after } from 'next/server';
import { drainTask } from 'messenger-outbox/serverless';
import { broker } from '../../../broker';
import { inTransaction } from '../../../database';
import { Order } from '../../../order';
import { outbox } from '../../../outbox';

/** Publishes after the response. What it does not get done is for the next request, or the cron job. */
const publish = drainTask(outbox, { publisher: broker, budget: 5_000 });

export async function POST(request: Request): Promise<Response> {
  const order = Order.safeParse(await request.json().catch(() => undefined));
  if (!order.success) return new Response(null, { status: 400 });
  const { id, item, pieces } = order.data;
  await inTransaction(async (client) => {
    await client.query('INSERT INTO orders VALUES ($1, $2, $3)', [id, item, pieces]);
    await outbox.send(client, 'order.placed', order.data);
  });
  after(publish);
  return new Response(null, { status: 201 });
}

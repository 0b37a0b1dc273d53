import { createServer, type IncomingMessage } from 'node:http';
import { json } from 'node:stream/consumers';
import { Order } from './order.js';
import { placeOrder, SoldOut } from './orders.js';

export const server = createServer((request, response) => {
  answer(request)
    .catch((error: unknown) => {
      console.error(error);
      return 500;
    })
    .then((status) => response.writeHead(status).end())
    .catch(console.error);
});

async function answer(request: IncomingMessage): Promise<number> {
  if (request.method !== 'POST' || request.url !== '/orders') return 404;
  const order = Order.safeParse(await json(request).catch(() => undefined));
  if (!order.success) return 400;
  try {
    await placeOrder(order.data);
    return 201;
  } catch (error) {
    if (error instanceof SoldOut) return 409;
    throw error;
  }
}

import type { Message, Publisher, Subscriber, Subscription } from 'messenger-outbox';

const subscriptions = new Set<(message: Message) => Promise<unknown>>();

/** Stands for your broker: resolves when every subscriber has handled the message, rejects when one could not. */
export const broker: Publisher & Subscriber = {
  async publish(message: Message) {
    console.log(`published ${String(message.topic)} ${new TextDecoder().decode(message.payload)}`);
    for (const handle of subscriptions) await handle(message);
  },
  async subscribe({ handler }: Subscription, { signal }: { readonly signal: AbortSignal }) {
    const handle = async (message: Message) => handler(message, { signal });
    subscriptions.add(handle);
    await new Promise((resolve) => {
      signal.addEventListener('abort', resolve, { once: true });
    });
    subscriptions.delete(handle);
  },
};

import { z } from 'zod';
import { defineOutbox, type Message, type Publisher } from '../../src/index.js';
import { PlainStore } from '../support/plain-store.js';

/** An application's outbox in memory, and ways to make it fail. */
export function shop() {
  const store = new PlainStore();
  const outbox = defineOutbox({ store, topics: { 'order.created': { schema: z.object({ id: z.string() }) } } });
  const messages = store.messages.bind(store);
  const errors: Error[] = [];
  return {
    store,
    outbox,
    errors,
    errorLogger: { error: (error: Error) => void errors.push(error) },
    send: (id: string) => store.transaction((tx) => outbox.send(tx, 'order.created', { id })),
    /** How many messages wait to be published. */
    waiting: async () => (await messages(100)).length,
    /** Makes the store fail from now on. */
    lose: () => (store.messages = () => Promise.reject(new Error('refused'))),
  };
}

/** A promise, and the functions that settle it. */
export function deferred() {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}

/** A publisher that holds its messages until it is told to continue. */
export function held() {
  const published: Message[] = [];
  const reached = deferred();
  const release = deferred();
  const publisher: Publisher = {
    async publish(message) {
      reached.resolve();
      await release.promise;
      published.push(message);
    },
  };
  return {
    publisher,
    published,
    /** Resolves when a message is in flight. */
    inFlight: reached.promise,
    release: release.resolve,
  };
}

/** Whether a promise is still pending after everything that could settle it by now has run. */
export async function isOpen(promise: Promise<unknown>): Promise<boolean> {
  let open = true;
  const settle = () => (open = false);
  promise.then(settle, settle);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  return open;
}

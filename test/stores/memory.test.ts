import { describe, expect, it } from 'vitest';
import { newMessage } from '../../src/core/contracts/message.js';
import { MemoryStore, type MemoryTransaction } from '../../src/stores/memory/index.js';
import { inboxTestSuite, storeTestSuite } from '../../src/testing/conformance/index.js';

describe('MemoryStore', () => {
  storeTestSuite<MemoryTransaction>({
    it,
    create: () => {
      const store = new MemoryStore();
      return Promise.resolve({
        store,
        transaction: (work) => store.transaction(work),
        kept: () => Promise.resolve(store.all().map(({ id }) => id)),
        close: () => Promise.resolve(),
      });
    },
    features: {
      concurrentTransactions: true,
      savepoints: false,
      refusesEndedTransactions: true,
      jsonPayloadsOnly: false,
      persistent: false,
      remembersListed: true,
      cleansSingly: true,
      delayed: true,
      feeds: false,
    },
  });

  inboxTestSuite<MemoryTransaction>({
    it,
    create: () => {
      const store = new MemoryStore();
      return Promise.resolve({
        store,
        transaction: (work) => store.transaction(work),
        close: () => Promise.resolve(),
      });
    },
    features: { concurrentTransactions: true, savepoints: false, refusesEndedTransactions: true, persistent: false },
  });

  it('publishes what is for a destination, too: it has one', async () => {
    const store = new MemoryStore();
    await store.declareDestinations(['kafka']);
    const messages = [newMessage('x', { destination: 'kafka' }), newMessage('y')];
    await store.transaction((transaction) => store.add(transaction, messages));
    expect((await store.messages(10)).map(({ id, destination }) => [id, destination])).toEqual(
      messages.map(({ id, destination }) => [id, destination]),
    );
  });

  it('keeps what was stored, whatever the application does to its objects afterwards', async () => {
    const store = new MemoryStore();
    const message = newMessage('before').setMetadata('state', 'before');
    await store.transaction((transaction) => store.add(transaction, message));
    message.setMetadata('state', 'after');
    message.payload.fill(0);
    const [listed] = await store.messages(1);
    expect(listed?.metadata).toEqual({ state: 'before' });
    expect(Buffer.from(listed!.payload).toString()).toBe('before');
  });

  it('takes what a transform makes a message of', async () => {
    const store = new MemoryStore<number>({ transform: (n) => newMessage(String(n), { id: `n-${n}` }) });
    await store.transaction((transaction) => store.add(transaction, [1, 2]));
    expect(store.all().map(({ id }) => id)).toEqual(['n-1', 'n-2']);
  });
});

import { describe, expect, it } from 'vitest';
import { newMessage } from '../../src/core/contracts/message.js';
import { MemoryStore, type MemoryTransaction } from '../../src/stores/memory/index.js';
import { adminTestSuite, inboxTestSuite, storeTestSuite } from '../../src/testing/conformance/index.js';

describe('MemoryStore', () => {
  storeTestSuite<MemoryTransaction>({
    it,
    create: () => {
      let ahead = 0;
      const store = new MemoryStore({ now: () => Date.now() + ahead });
      return Promise.resolve({
        store,
        transaction: (work) => store.transaction(work),
        expireLease: (destination) => {
          store.revoke(destination);
          return Promise.resolve();
        },
        makeDue: () => {
          ahead += 3_600_000;
          return Promise.resolve();
        },
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
      feeds: true,
    },
  });

  adminTestSuite<MemoryTransaction>({
    it,
    create: () => {
      const store = new MemoryStore();
      return Promise.resolve({
        store,
        transaction: (work) => store.transaction(work),
        close: () => Promise.resolve(),
      });
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

  it('publishes what is for a destination there alone, and makes it where it is missing', async () => {
    const store = new MemoryStore();
    await store.declareDestinations(['audit']);
    const messages = ['kafka', 'audit', undefined].map((destination) => newMessage('x', { destination }));
    await store.transaction((transaction) => store.add(transaction, messages));
    const published = async (destination: string) => {
      const feed = await store.openFeed({ destination, pageSize: 10 });
      return (await feed!.read()).messages.map((each) => each.destination);
    };
    expect(await published('kafka')).toEqual(['kafka']);
    expect(await published('audit')).toEqual(['audit']);
    expect(await published('default')).toEqual([undefined]);
    expect((await store.messages(10)).map((each) => each.destination)).toEqual([undefined]);
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

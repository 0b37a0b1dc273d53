import { describe, expect, it } from 'vitest';
import { PublishError } from '../../src/core/errors.js';
import { newMessage } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
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

  const create = () => {
    const store = new MemoryStore();
    const transaction: typeof store.transaction = (work) => store.transaction(work);
    return Promise.resolve({ store, transaction, close: () => Promise.resolve() });
  };
  adminTestSuite<MemoryTransaction>({ it, create });

  inboxTestSuite<MemoryTransaction>({
    it,
    create,
    features: { concurrentTransactions: true, savepoints: false, refusesEndedTransactions: true, persistent: false },
  });

  it('says how to select messages if no filter is given', async () => {
    await expect(new MemoryStore().admin.discard({ destination: 'a' })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: 'say which messages: pass at least one of ids, key, topic, state, error, since, until, or { all: true }',
    });
  });

  it('publishes what is for a destination there alone, and makes it where it is missing', async () => {
    const store = new MemoryStore();
    await store.declareDestinations(['audit']);
    await store.admin.addDestination('orders', { from: 'beginning', topics: ['order'] });
    await store.declareDestinations(['orders']);
    expect((await store.admin.destinations()).map(({ name, topics }) => [name, topics])).toEqual([
      ['audit', []],
      ['orders', ['order']],
    ]);
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

  it('keeps a message until every destination has published it', async () => {
    const store = new MemoryStore();
    await store.admin.addDestination('audit', { from: 'beginning' });
    await store.transaction((transaction) => store.add(transaction, newMessage('x')));
    await store.published(...(await store.messages(10)));
    await store.deletePublishedByExpiration(0);
    expect(store.all().map(({ published }) => published)).toEqual([false]);
    const feed = await store.openFeed({ destination: 'audit', pageSize: 10 });
    await feed!.settle(await feed!.read(), []);
    expect(store.all().map(({ published }) => published)).toEqual([true]);
    await store.deletePublishedByExpiration(0);
    expect(store.all()).toEqual([]);
  });

  it('forgets a destination that has no relay for longer than it may, and tells so', async () => {
    let now = 0;
    const store = new MemoryStore({ now: () => now });
    await store.admin.addDestination('audit', { from: 'beginning', forgetAfter: 60_000 });
    const feed = await store.openFeed({ destination: 'audit', pageSize: 10 });
    now = 70_000;
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ forgotten: [] });
    await feed!.close();
    now = 130_000;
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ forgotten: [] });
    now = 130_001;
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ forgotten: ['audit'] });
    expect((await store.admin.destinations())[0]).toMatchObject({ name: 'audit', forgottenAt: new Date(now) });
    await expect(store.openFeed({ destination: 'audit', pageSize: 10 })).rejects.toMatchObject({
      code: 'DESTINATION_FORGOTTEN',
    });
    const late = newMessage('x', { destination: 'audit' });
    await expect(store.transaction((transaction) => store.add(transaction, late))).rejects.toMatchObject({
      code: 'UNKNOWN_DESTINATION',
    });
  });

  it('keeps the dead letters of a destination that was forgotten', async () => {
    let now = 0;
    const store = new MemoryStore({ now: () => now });
    await store.admin.addDestination('audit', { from: 'beginning', forgetAfter: 60_000 });
    await store.transaction((transaction) => store.add(transaction, newMessage('x', { id: 'm' })));
    const feed = await store.openFeed({ destination: 'audit', pageSize: 10 });
    const page = await feed!.read();
    await feed!.settle(page, [{ message: page.messages[0]!, attempts: 1, error: new Error('refused'), dead: true }]);
    await feed!.close();
    now = 60_001;
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ forgotten: ['audit'] });
    expect(await store.admin.deadLetters({ destination: 'audit' })).toMatchObject([{ message: { id: 'm' } }]);
    await store.admin.discard({ destination: 'audit', all: true });
    await store.deletePublishedByExpiration(0);
    expect(store.all()).toEqual([]);
  });

  it('cleans what no destination publishes, once there is one', async () => {
    const store = new MemoryStore();
    await store.transaction((transaction) => store.add(transaction, newMessage('x', { topic: 'other' })));
    await store.deletePublishedByExpiration(0);
    expect(store.all()).toHaveLength(1);
    await store.admin.addDestination('orders', { from: 'beginning', topics: ['order'] });
    await store.deletePublishedByExpiration(0);
    expect(store.all()).toEqual([]);
  });

  it('has topics of its own, and refuses what is no function', async () => {
    const store = new MemoryStore();
    const topics = ['order'];
    await store.admin.addDestination('orders', { from: 'beginning', topics });
    topics.push('other');
    const [state] = await store.admin.destinations();
    (state?.topics as string[]).push('third');
    expect(await store.admin.destinations()).toMatchObject([{ topics: ['order'] }]);
    expect(() => new MemoryStore({ now: 5 as never })).toThrow('now must be a function, got 5');
    expect(() => new MemoryStore({ transform: 'x' as never })).toThrow('transform must be a function, got "x"');
  });

  it('counts a relay that stands by, and not one that is gone', async () => {
    let now = 0;
    const store = new MemoryStore({ now: () => now });
    const open = (relay: string) => store.openFeed({ destination: 'default', pageSize: 10, relay });
    const relays = async () => (await store.admin.destinations())[0]?.relays;
    const feed = await open('a');
    expect([await open('b'), await relays()]).toEqual([null, 2]);
    await feed!.close({ stays: true });
    expect(await relays()).toBe(2);
    const again = await open('a');
    expect(await relays()).toBe(2);
    now = 3_000;
    expect(await relays()).toBe(1);
    await again!.close();
    expect(await relays()).toBe(0);
  });

  it('keeps a dead letter of a relay until somebody has it tried again', async () => {
    const store = new MemoryStore();
    await store.transaction((transaction) => store.add(transaction, newMessage('x', { id: 'x' })));
    const refusing = () => Promise.reject(new PublishError('too large', { kind: 'permanent' }));
    await expect(new Messenger(store, refusing).publish()).rejects.toThrow('too large');
    expect(await store.admin.deadLetters()).toMatchObject([
      { message: { id: 'x' }, state: 'dead', error: 'too large' },
    ]);
    const taking = new Messenger(store, () => Promise.resolve());
    expect(await taking.publish()).toBe(0);
    expect(await store.admin.requeue({ ids: ['x'] })).toBe(1);
    expect(await taking.publish()).toBe(1);
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

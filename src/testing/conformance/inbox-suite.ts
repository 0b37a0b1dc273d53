/**
 * Tests for everything that the store of an inbox must do, under any test runner.
 *
 * @module
 */
import type { InboxStore } from '../../core/contracts/inbox.js';
import { uuidv7 } from '../../core/util/uuid.js';
import { assert, assertEqual, gate, refused, rejection, testsWith } from './assert.js';
import { needed, type StoreFeatures, type StoreHarness } from './store-harness.js';

/** The features that the store of an inbox declares. They have the same meaning as in the store suite. */
export type InboxFeatures = Pick<
  StoreFeatures,
  'concurrentTransactions' | 'savepoints' | 'refusesEndedTransactions' | 'persistent'
>;

/** One store with empty storage of its own. */
export interface InboxHarness<Handle> extends Pick<StoreHarness<Handle>, 'transaction' | 'savepoint' | 'close'> {
  readonly store: InboxStore<Handle>;
  /** Closes the store, and resolves to a new store with the same data. */
  readonly reopen?: () => Promise<InboxStore<Handle>>;
}

/** The parameters of the suite. */
export interface InboxSuite<Handle> {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** Creates a new harness. Called once per test. */
  readonly create: () => Promise<InboxHarness<Handle>>;
  readonly features: InboxFeatures;
}

type InboxTest<Handle> = (name: string, body: (harness: InboxHarness<Handle>) => Promise<void>) => void;

/**
 * Declares the tests for the `InboxStore` contract.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('the inbox of my store', () => inboxTestSuite({ it, create, features }));
 * ```
 */
export function inboxTestSuite<Handle>({ it, create, features }: InboxSuite<Handle>): void {
  const test: InboxTest<Handle> = testsWith(it, create);
  receiving(test, features);
  rollingBack(test, features);
  atOnce(test, features);
  refusals(test, features);
  forgetting(test);
}

function receiving<Handle>(test: InboxTest<Handle>, features: InboxFeatures): void {
  test('says only once that a message is received for the first time', async (harness) => {
    assertEqual(await received(harness, 'billing', 'a', 3), [true, false, false], 'first times');
  });

  test('says that only once within a transaction', async ({ store, transaction }) => {
    const times = await transaction(async (handle) => [
      await store.receive(handle, 'billing', 'a'),
      await store.receive(handle, 'billing', 'a'),
    ]);
    assertEqual(times, [true, false], 'first times');
  });

  test('tells consumers and ids apart', async (harness) => {
    const texts = ['a', 'A', ' a', 'b', 'a\nb', '["a"', '"', "'; --", '$1', '\\', 'grüße 漢字 😀', 'é', 'e\u0301'];
    for (const consumer of texts) {
      for (const id of texts) {
        assertEqual(await received(harness, consumer, id, 1), [true], `${consumer} first receives ${id}`);
      }
    }
    for (const text of texts) assertEqual(await received(harness, text, text, 1), [false], `${text} again`);
  });

  test('accepts a consumer and an id that look like an answer of the store', async (harness) => {
    for (const text of ['messenger-inbox:0', 'messenger-inbox:1']) {
      assertEqual(await received(harness, text, text, 2), [true, false], text);
    }
  });

  if (!features.persistent) return;
  test('remembers it across a restart', async (harness) => {
    await received(harness, 'billing', 'a', 1);
    const store = await needed(harness.reopen, 'reopen')();
    assertEqual(await received({ ...harness, store }, 'billing', 'a', 1), [false], 'first times');
  });
}

function rollingBack<Handle>(test: InboxTest<Handle>, features: InboxFeatures): void {
  test('records nothing in a transaction that is rolled back', async (harness) => {
    await rejection(rolledBack(harness, 'billing', 'a'), 'the transaction');
    assertEqual(await received(harness, 'billing', 'a', 2), [true, false], 'first times');
  });

  if (!features.savepoints) return;
  test('records nothing in a savepoint that is rolled back', async (harness) => {
    const { store, transaction } = harness;
    const savepoint = needed(harness.savepoint, 'savepoint');
    await transaction(async (handle) => {
      const part = savepoint(handle, async (inner) => {
        await store.receive(inner, 'billing', 'a');
        throw new Error('rolled back');
      });
      await rejection(part, 'the savepoint');
    });
    assertEqual(await received(harness, 'billing', 'a', 1), [true], 'first times');
  });
}

function atOnce<Handle>(test: InboxTest<Handle>, features: InboxFeatures): void {
  test('says that it is the first time to only one of many simultaneous calls', async (harness) => {
    const ids = Array.from({ length: 5 }, () => uuidv7());
    const times = await Promise.all(
      [...ids, ...ids, ...ids].map(async (id) => ((await received(harness, 'billing', id, 1))[0] ? id : undefined)),
    );
    assertEqual(times.filter((id) => id !== undefined).sort(), ids, 'first times');
  });

  if (!features.concurrentTransactions) return;
  for (const end of ['commits', 'rolls back'] as const) {
    const isFirst = end === 'rolls back';
    test(`waits while another transaction receives it, and ${isFirst ? 'is' : 'is not'} the first where that ${end}`, async (harness) => {
      const { opened: hasReceived, open: receives } = gate();
      const { opened: mayEnd, open: end } = gate();
      const order: string[] = [];
      const first = harness.transaction(async (handle) => {
        await harness.store.receive(handle, 'billing', 'a');
        receives();
        await mayEnd;
        order.push('the first ends');
        if (isFirst) throw new Error('rolled back');
      });
      await hasReceived;
      const second = received(harness, 'billing', 'a', 1).then(([time]) => {
        order.push('the second goes on');
        return time;
      });
      // Other messages are not held up meanwhile. If the second call did not wait, it would have finished by then.
      for (let n = 0; n < 5; n++) await received(harness, 'billing', `other ${String(n)}`, 1);
      end();
      await (isFirst ? rejection(first, 'the first transaction') : first);
      assertEqual(await second, isFirst, 'whether the second is the first');
      assertEqual(order, ['the first ends', 'the second goes on'], 'order');
    });
  }
}

function refusals<Handle>(test: InboxTest<Handle>, features: InboxFeatures): void {
  test('refuses a missing or unknown transaction handle', async ({ store }) => {
    for (const handle of [undefined, null, {}, 'BEGIN', 1, store]) {
      await refused(store.receive(handle as Handle, 'billing', 'a'), 'INVALID_TRANSACTION');
    }
  });

  if (features.refusesEndedTransactions) {
    test('refuses a handle whose transaction has ended', async (harness) => {
      const ended = await harness.transaction((handle) => Promise.resolve([handle]));
      await refused(harness.store.receive(ended[0] as Handle, 'billing', 'a'), 'INVALID_TRANSACTION');
      assertEqual(await received(harness, 'billing', 'a', 1), [true], 'first times');
    });
  }

  test('refuses a consumer and an id that cannot be kept, harming no transaction', async ({ store, transaction }) => {
    const isFirst = await transaction(async (handle) => {
      for (const text of ['', 'a\u0000', '\ud800', undefined, 7] as string[]) {
        await refused(store.receive(handle, text, 'a'), 'INVALID_OPTION');
        await refused(store.receive(handle, 'billing', text), 'INVALID_MESSAGE');
      }
      return store.receive(handle, 'billing', 'a');
    });
    assertEqual(isFirst, true, 'whether it is the first time');
  });

  test('refuses an expiration that is out of range', async ({ store }) => {
    for (const value of [-1, NaN, Infinity, '5', null] as number[]) {
      await refused(store.deleteReceived('billing', value), 'INVALID_OPTION');
    }
  });
}

function forgetting<Handle>(test: InboxTest<Handle>): void {
  test('forgets what was received long ago, and nothing else', async (harness) => {
    const { store } = harness;
    for (const id of ['a', 'b', 'c']) await received(harness, 'billing', id, 1);
    await received(harness, 'audit', 'a', 1);
    assertEqual(await store.deleteReceived('billing', 3_600_000), 0, 'forgotten of what is new');
    assertEqual(await received(harness, 'billing', 'a', 1), [false], 'first times');
    assertEqual(await store.deleteReceived('billing', 0), 3, 'forgotten');
    assertEqual(await received(harness, 'billing', 'a', 2), [true, false], 'first times');
    assertEqual(await received(harness, 'audit', 'a', 1), [false], 'first times of another');
  });

  test('forgets many messages, each only once, even with simultaneous calls', async (harness) => {
    const { store, transaction } = harness;
    await transaction(async (handle) => {
      for (let n = 0; n < 2_500; n++) await store.receive(handle, 'billing', String(n));
    });
    const counts = await Promise.all([
      store.deleteReceived('billing', 0),
      store.deleteReceived('billing', 0),
      store.deleteReceived('billing', 0),
    ]);
    const left = await store.deleteReceived('billing', 0);
    assertEqual(
      counts.reduce((sum, count) => sum + count, left),
      2_500,
      'forgotten',
    );
  });
}

/**
 * Receives a message `times` times, each time in a separate transaction. Returns for each call whether it was the
 * first.
 */
async function received<Handle>(
  { store, transaction }: Pick<InboxHarness<Handle>, 'store' | 'transaction'>,
  consumer: string,
  id: string,
  times: number,
): Promise<boolean[]> {
  const firsts: boolean[] = [];
  for (let n = 0; n < times; n++) firsts.push(await transaction((handle) => store.receive(handle, consumer, id)));
  return firsts;
}

async function rolledBack<Handle>(
  { store, transaction }: InboxHarness<Handle>,
  consumer: string,
  id: string,
): Promise<void> {
  await transaction(async (handle) => {
    assert(await store.receive(handle, consumer, id), 'it was received before');
    throw new Error('rolled back');
  });
}

/**
 * What every store must do that keeps what consumers have received, as tests for any runner.
 *
 * @module
 */
import type { InboxStore } from '../core/inbox.js';
import { assert, assertEqual, gate, rejection } from './assert.js';

/** One such store over an empty place of its own. */
export interface InboxHarness<Handle> {
  readonly store: InboxStore<Handle>;
  /** Runs `work` in a transaction: commits when it resolves; rolls back, and rejects alike, when it rejects. */
  readonly transaction: <T>(work: (handle: Handle) => Promise<T>) => Promise<T>;
  readonly close: () => Promise<void>;
}

/** What the suite needs. */
export interface InboxSuite<Handle> {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** A new harness: called once per test. */
  readonly create: () => Promise<InboxHarness<Handle>>;
  /** Two transactions can be open at once. False: what needs two is not tested. */
  readonly concurrentTransactions: boolean;
}

/**
 * Declares the tests of the contract `InboxStore`.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('my store', () => inboxTestSuite({ it, create, concurrentTransactions: true }));
 * ```
 */
export function inboxTestSuite<Handle>({ it, create, concurrentTransactions }: InboxSuite<Handle>): void {
  const test = (name: string, body: (harness: Received<Handle>) => Promise<void>) => {
    it(name, async () => {
      const harness = await create();
      const receive = (consumer: string, id: string) =>
        harness.transaction((handle) => harness.store.receive(handle, consumer, id));
      try {
        await body({ ...harness, receive });
      } finally {
        await harness.close();
      }
    });
  };

  test('receives a message once, each consumer and each message for itself', async ({ receive }) => {
    assertEqual([await receive('a', '1'), await receive('a', '1')], [true, false], 'twice');
    assertEqual([await receive('b', '1'), await receive('a', '2')], [true, true], 'another');
    // Not the same when joined.
    assertEqual([await receive('a1', '2'), await receive('a', '12')], [true, true], 'alike');
  });

  test('has not received what was rolled back', async ({ store, transaction, receive }) => {
    const failing = transaction(async (handle) => {
      assert(await store.receive(handle, 'a', '1'), 'the first time');
      assert(!(await store.receive(handle, 'a', '1')), 'again, in the same transaction');
      throw new Error('rolled back');
    });
    await rejection(failing, 'the transaction');
    assertEqual([await receive('a', '1'), await receive('a', '1')], [true, false], 'after it');
  });

  test('keeps any text apart', async ({ receive }) => {
    const texts = ['A', 'a', ' a', 'a ', 'ä', 'a\u0308', 'it\'s \\ "$1" ?', '名😀', '%', '_', 'x'.repeat(500)];
    for (const text of texts) assert(await receive(text, text), `${text}, the first time`);
    for (const text of texts) assert(!(await receive(text, text)), `${text}, again`);
  });

  test('refuses what is no transaction', async ({ store, receive }) => {
    for (const handle of [undefined, null, {}]) {
      const refused = await rejection(store.receive(handle as Handle, 'a', '1'), 'no transaction');
      assertEqual((refused as { code?: unknown }).code, 'INVALID_TRANSACTION', 'code');
    }
    assert(await receive('a', '1'), 'nothing was received');
  });

  test('forgets what is old, all of it, and nothing else', async ({ store, transaction, receive }) => {
    const count = 1_203;
    await transaction(async (handle) => {
      for (let n = 0; n < count; n++) await store.receive(handle, n % 2 === 0 ? 'a' : 'b', String(n));
    });
    assertEqual(await store.forgetReceived(3_600_000), 0, 'forgotten of the last hour');
    assert(!(await receive('a', '0')), 'kept');
    assertEqual(await store.forgetReceived(0), count, 'forgotten');
    assertEqual([await receive('a', '0'), await receive('a', '0')], [true, false], 'after it');
  });

  if (!concurrentTransactions) return;
  for (const commits of [true, false]) {
    test(`of two that come at once one is first: the other, where that one ${commits ? 'commits, is second' : 'fails'}`, async (harness) => {
      const { store, transaction, receive } = harness;
      const [received, end] = [gate(), gate()];
      const first = transaction(async (handle) => {
        assert(await store.receive(handle, 'a', '1'), 'the first');
        received.open();
        await end.opened;
        if (!commits) throw new Error('rolled back');
      });
      await received.opened;
      const second = receive('a', '1');
      // It waits: another message, asked for after it, is received meanwhile.
      assert(await receive('a', '2'), 'another');
      end.open();
      await (commits ? first : rejection(first, 'the first'));
      assertEqual(await second, !commits, 'the second');
    });
  }
}

interface Received<Handle> extends InboxHarness<Handle> {
  /** In a transaction of its own. */
  readonly receive: (consumer: string, id: string) => Promise<boolean>;
}

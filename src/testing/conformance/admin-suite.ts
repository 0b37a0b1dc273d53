/**
 * Tests for everything that the `admin` of a store must do, under any test runner.
 *
 * @module
 */
import { giveUp, published, stateOf, using, type AdminSuite, type AdminTest } from './admin-harness.js';
import { adminMessageTests } from './admin-message-suite.js';
import { assert, assertEqual, refused, rejection, testsWith } from './assert.js';
import { behind, failed, idsOf, message, stored } from './store-harness.js';

const HOUR = 3_600_000;

/**
 * Declares the tests for the `OutboxAdmin` contract.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('the admin of my store', () => adminTestSuite({ it, create }));
 * ```
 */
export function adminTestSuite<Handle>({ it, create }: AdminSuite<Handle>): void {
  const test: AdminTest<Handle> = testsWith(it, create);
  adding(test);
  telling(test);
  removing(test);
  adminMessageTests(test);
  refusals(test);
}

function adding<Handle>(test: AdminTest<Handle>): void {
  test('adds a destination that begins at the beginning, at the end, or at a time', async (harness) => {
    const { admin } = harness.store;
    const [first] = await stored(harness, [message()]);
    await admin.addDestination('beginning', { from: 'beginning' });
    await admin.addDestination('end', { from: 'end' });
    await admin.addDestination('time', { from: new Date(0) });
    const [second] = await stored(harness, [message()]);
    for (const name of ['beginning', 'time']) {
      assertEqual(await published(harness, name), idsOf([first, second]), `published by ${name}`);
    }
    assertEqual(await published(harness, 'end'), [second?.id], 'published by end');
  });

  test('adds a destination of some topics, or of what is for it alone', async (harness) => {
    const { admin } = harness.store;
    await admin.addDestination('orders', { from: 'beginning', topics: ['order', 'refund'] });
    await admin.addDestination('alone', { from: 'beginning', topics: [] });
    const messages = [{ topic: 'order' }, { topic: 'other' }, {}, { topic: 'other', destination: 'alone' }];
    const [order, , , alone] = await stored(
      harness,
      messages.map((options) => message(options)),
    );
    assertEqual(await published(harness, 'orders'), [order?.id], 'published by orders');
    assertEqual(await published(harness, 'alone'), [alone?.id], 'published by alone');
  });

  test('refuses a destination that is there already, added or begun by a relay', async (harness) => {
    const { admin } = harness.store;
    await admin.addDestination('added', { from: 'end' });
    await published(harness, 'begun');
    for (const name of ['added', 'begun']) {
      await refused(admin.addDestination(name, { from: 'beginning' }), 'CONFLICT', name);
    }
  });

  test('changes how long cleaning waits for a destination without a relay', async (harness) => {
    const { admin } = harness.store;
    await admin.addDestination('a', { from: 'end', forgetAfter: 60_000 });
    const limit = async (): Promise<unknown> => (await stateOf(harness, 'a')).forgetAfter;
    assertEqual(await limit(), 60_000, 'forgetAfter as added');
    for (const forgetAfter of [90_000, null]) {
      await admin.updateDestination('a', { forgetAfter });
      assertEqual(await limit(), forgetAfter, 'forgetAfter');
    }
  });
}

function telling<Handle>(test: AdminTest<Handle>): void {
  test('tells of no destination where nothing is stored', async ({ store }) => {
    assertEqual(await store.admin.destinations(), [], 'destinations');
  });

  test('tells of `default` before its first relay, where messages wait for it', async (harness) => {
    await harness.store.admin.addDestination('orders', { from: 'beginning', topics: ['order'] });
    await stored(harness, [message({ topic: 'order' }), message(), message({ topic: 'other' })]);
    const states = await harness.store.admin.destinations();
    assertEqual(
      states.map(({ name, pending }) => [name, pending]),
      [
        ['default', 2],
        ['orders', 1],
      ],
      'names and pending messages',
    );
    const [state] = states;
    assertEqual([state?.createdAt, state?.activeAt, state?.held, state?.relays], [null, null, 0, 0], 'who works on it');
    assert(state?.stalledSince instanceof Date, 'no relay works on it');
  });

  test('tells how a destination does', async (harness) => {
    const { admin } = harness.store;
    await admin.addDestination('a', { from: 'beginning', topics: ['t'], forgetAfter: 90_000 });
    const topic = 't';
    await stored(harness, [message({ topic, key: 'a' }), message({ topic }), message({ topic }), message({ topic })]);
    const waiting = await stateOf(harness, 'a');
    assertEqual([waiting.topics, waiting.pending, waiting.morePending], [['t'], 4, false], 'pending');
    assert(waiting.createdAt instanceof Date && waiting.stalledSince instanceof Date, 'added, and without a relay');
    assert(waiting.oldestPending !== null && waiting.oldestPending >= 0, 'how long the oldest waits');
    await using(harness, 'a', async (feed) => {
      const page = await feed.read();
      await feed.settle(page, [failed(page, 0, { blocked: true }), failed(page, 1, { dead: true }), behind(page, 2)]);
      const held = await stateOf(harness, 'a');
      assertEqual([held.held, held.relays, held.stalledSince], [held.partitions, 1, null], 'while a relay works on it');
    });
    const state = await stateOf(harness, 'a');
    assertEqual([state.pending, state.oldestPending, state.held, state.relays], [0, null, 0, 0], 'nothing is pending');
    assertEqual([state.parked, state.blocked, state.dead], [2, 1, 1], 'parked, blocked and dead');
    assert(state.activeAt instanceof Date, 'when a relay worked on it');
    assertEqual([state.forgetAfter, state.forgottenAt], [90_000, null], 'forgetAfter');
  });
}

function removing<Handle>(test: AdminTest<Handle>): void {
  test('removes a destination that has published everything, and nothing of another', async (harness) => {
    const { admin } = harness.store;
    const [only] = await stored(harness, [message()]);
    await published(harness, 'a');
    assertEqual(
      await admin.removeDestination('a'),
      { pending: 0, morePending: false, parked: 0, dead: 0 },
      'what went with it',
    );
    assertEqual(await published(harness, 'default'), [only?.id], 'published by default');
    await admin.addDestination('a', { from: 'end' });
    assertEqual(await published(harness, 'a'), [], 'published once it was added again');
  });

  test('removes one with messages only if it is told to discard them, and tells how many', async (harness) => {
    const { admin } = harness.store;
    await giveUp(harness, [message(), message()], { dead: true });
    await stored(harness, [message()]);
    await refused(admin.removeDestination('default'), 'CONFLICT', 'discard');
    const gone = await admin.removeDestination('default', { discard: true });
    assertEqual([gone.pending, gone.parked, gone.dead], [1, 0, 2], 'what went with it');
    assertEqual(await admin.deadLetters(), [], 'dead letters');
  });

  test('removes none that a relay works on', async (harness) => {
    const { admin } = harness.store;
    await using(harness, 'a', async () => {
      await refused(admin.removeDestination('a', { discard: true }), 'CONFLICT', 'a relay works on');
    });
    await admin.removeDestination('a');
  });
}

function refusals<Handle>(test: AdminTest<Handle>): void {
  test('refuses a destination that is not there, and names those that are', async (harness) => {
    const { admin } = harness.store;
    await admin.addDestination('there', { from: 'end' });
    const calls: Record<string, () => Promise<unknown>> = {
      updateDestination: () => admin.updateDestination('gone', { forgetAfter: null }),
      removeDestination: () => admin.removeDestination('gone'),
      parked: () => admin.parked({ destination: 'gone' }),
      deadLetters: () => admin.deadLetters({ destination: 'gone' }),
      requeue: () => admin.requeue({ destination: 'gone', all: true }),
      discard: () => admin.discard({ destination: 'gone', all: true }),
    };
    for (const [name, call] of Object.entries(calls)) {
      await refused(call(), 'UNKNOWN_DESTINATION', 'there is no destination "gone"; there are "there"', name);
    }
  });

  test('refuses options that it does not know, or that are out of range', async ({ store: { admin } }) => {
    const calls: readonly [() => Promise<unknown>, string][] = [
      [() => admin.addDestination('', { from: 'end' }), 'non-empty'],
      [() => admin.addDestination('a', { from: 'middle' as 'end' }), 'middle'],
      [() => admin.addDestination('a', { from: new Date(NaN) }), 'from'],
      [() => admin.addDestination('a', { from: new Date(Date.now() + HOUR) }), 'future'],
      [() => admin.addDestination('a', { from: 'end', topics: [''] }), 'topics'],
      [() => admin.addDestination('a', { from: 'end', forgetAfter: 59_999 }), '59999'],
      [() => admin.addDestination('a', { from: 'end', form: 'end' } as never), 'form'],
      [() => admin.addDestination('a', { from: 'end', topics: '' as never }), 'got ""'],
      [() => admin.addDestination('a', undefined as never), 'undefined'],
      [() => admin.updateDestination('a', {} as never), 'forgetAfter'],
      [() => admin.removeDestination('a', { all: true } as never), 'all'],
      [() => admin.deadLetters({ limit: 0 }), '0'],
      [() => admin.deadLetters({ limit: 10_001 }), '10001'],
      [() => admin.deadLetters({ after: -1 }), '-1'],
      [() => admin.deadLetters({ state: 'parked' as 'dead' }), 'parked'],
      [() => admin.deadLetters({ ids: [] }), 'ids'],
      [() => admin.deadLetters({ key: '' }), 'key'],
      [() => admin.deadLetters({ since: 1 as never }), 'since'],
      [() => admin.parked({ state: 'dead' as 'blocked' }), 'dead'],
      [() => admin.parked({ since: new Date() } as never), 'since'],
      [() => admin.requeue({}), 'say which'],
      [() => admin.discard({ destination: 'a' }), 'say which'],
    ];
    for (const [call, names] of calls) await refused(call(), 'INVALID_OPTION', names, names);
  });

  test('does nothing once its signal has aborted', async ({ store: { admin } }) => {
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await admin.addDestination('a', { from: 'end' });
    const calls: Record<string, () => Promise<unknown>> = {
      destinations: () => admin.destinations({ signal }),
      addDestination: () => admin.addDestination('b', { from: 'end', signal }),
      updateDestination: () => admin.updateDestination('a', { forgetAfter: null, signal }),
      removeDestination: () => admin.removeDestination('a', { signal }),
      parked: () => admin.parked({ signal }),
      deadLetters: () => admin.deadLetters({ signal }),
      requeue: () => admin.requeue({ all: true, destination: 'a', signal }),
      discard: () => admin.discard({ all: true, destination: 'a', signal }),
    };
    for (const [name, call] of Object.entries(calls)) {
      assert((await rejection(call(), name)) === reason, `${name} rejects with the reason of its signal`);
    }
    assertEqual(
      (await admin.destinations()).map(({ name }) => name),
      ['a'],
      'destinations',
    );
  });
}

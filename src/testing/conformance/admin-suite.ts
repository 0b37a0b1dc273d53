/**
 * What the `admin` of every store must do, as tests for any runner.
 *
 * @module
 */
import type {
  DeadLetterSelection,
  DeadLettersOptions,
  OutboxAdmin,
  ParkedOptions,
} from '../../core/contracts/admin.js';
import type { Feed, Page, ToPark } from '../../core/contracts/feed.js';
import { newMessage, type Message } from '../../core/contracts/message.js';
import type { FeedStore } from '../../core/contracts/store.js';
import { assert, assertEqual, refused, rejection, testsWith, until } from './assert.js';
import {
  behind,
  failed,
  idsOf,
  later,
  message,
  stored,
  type StoreHarness,
  type StoreSuite,
  type TestedStore,
} from './store-harness.js';

/** One store over an empty place of its own. Its role may do all that an operator and a relay do. */
export interface AdminHarness<Handle> extends Pick<StoreHarness<Handle>, 'transaction' | 'close'> {
  readonly store: FeedStore & TestedStore<Handle> & { readonly admin: OutboxAdmin };
}

/** What the suite needs. */
export interface AdminSuite<Handle> extends Pick<StoreSuite<Handle>, 'it'> {
  /** A new harness: called once per test. */
  readonly create: () => Promise<AdminHarness<Handle>>;
}

type AdminTest<Handle> = (name: string, body: (harness: AdminHarness<Handle>) => Promise<void>) => void;

const HOUR = 3_600_000;

/**
 * Declares the tests of the contract `OutboxAdmin`.
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
  listing(test);
  changing(test);
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

function listing<Handle>(test: AdminTest<Handle>): void {
  test('lists what was given up, whole, in order', async (harness) => {
    const given = newMessage('{"a":1}', { id: 'one', key: 'k', topic: 't', metadata: { a: 'b' }, at: new Date(1e12) });
    await giveUp(harness, [given, message({ id: 'two', key: 'k' }), message({ id: 'three' })], { dead: true });
    const letters = await harness.store.admin.deadLetters();
    assertEqual(
      letters.map(({ message: { id }, state }) => [id, state]),
      [
        ['one', 'dead'],
        ['two', 'dead'],
        ['three', 'dead'],
      ],
      'dead letters',
    );
    const [letter] = letters;
    assert(letter !== undefined, 'the first dead letter');
    const { id, key, topic, metadata, at, payload } = letter.message;
    assertEqual([id, key, topic, metadata, at], ['one', 'k', 't', { a: 'b' }, new Date(1e12)], 'its message');
    assertEqual(new TextDecoder().decode(payload), '{"a":1}', 'its payload');
    assertEqual([letter.error, letter.attempts, letter.reason], ['refused', 3, 'dead'], 'its error');
    for (const time of [letter.storedAt, letter.firstFailedAt, letter.lastFailedAt, letter.givenUpAt]) {
      assert(time instanceof Date && Math.abs(time.getTime() - Date.now()) < HOUR, `a time is ${String(time)}`);
    }
  });

  test('lists what was given up by page, and by what is asked for', async (harness) => {
    const { admin } = harness.store;
    await giveUp(harness, [message({ id: '1', key: 'k', topic: 't' }), message({ id: '2' })], { dead: true });
    await giveUp(harness, [message({ id: '3', key: 'l', topic: 't' })], { blocked: true, error: new Error('no 3') });
    const ids = async (options: DeadLettersOptions): Promise<unknown> =>
      idsOf((await admin.deadLetters(options)).map((letter) => letter.message));
    const [first] = await admin.deadLetters({ limit: 1 });
    const expected: [DeadLettersOptions, string[]][] = [
      [{}, ['1', '2', '3']],
      [{ limit: 2 }, ['1', '2']],
      [{ after: first?.seq }, ['2', '3']],
      [{ topic: 't' }, ['1', '3']],
      [{ key: 'k' }, ['1']],
      [{ state: 'dead' }, ['1', '2']],
      [{ state: 'blocked', topic: 't' }, ['3']],
      [{ error: 'o 3' }, ['3']],
      [{ ids: ['3', '2', 'x'] }, ['2', '3']],
      [{ since: new Date(Date.now() - HOUR) }, ['1', '2', '3']],
      [{ until: new Date(Date.now() - HOUR) }, []],
    ];
    for (const [options, found] of expected) assertEqual(await ids(options), found, JSON.stringify(options));
  });

  test('lists what is parked, and why', async (harness) => {
    const { admin } = harness.store;
    const messages = [
      message({ id: 'failed', key: 'a', topic: 't' }),
      message({ id: 'behind', key: 'a' }),
      later(HOUR, { id: 'delayed' }),
      message({ id: 'blocked', key: 'b' }),
      message({ id: 'dead' }),
    ];
    await stored(harness, messages);
    await using(harness, 'default', async (feed) => {
      const page = await feed.read();
      const place = (id: string): number => page.messages.findIndex((each) => each.id === id);
      await feed.settle(page, [
        failed(page, place('failed'), { attempts: 2, retryIn: HOUR }),
        behind(page, place('behind')),
        failed(page, place('blocked'), { blocked: true }),
        failed(page, place('dead'), { dead: true }),
      ]);
    });
    const states = async (options?: ParkedOptions): Promise<unknown> =>
      (await admin.parked(options)).map((each) => [each.message.id, each.state]);
    const waiting = ['failed', 'behind', 'delayed', 'blocked'].map((id) => [id, id === 'failed' ? 'retry' : id]);
    assertEqual(await states(), waiting, 'parked');
    assertEqual(await states({ state: 'behind' }), waiting.slice(1, 2), 'those behind');
    assertEqual(await states({ key: 'a', limit: 1 }), waiting.slice(0, 1), 'the first of a key');
    assertEqual(await states({ error: 'refused' }), [waiting[0], waiting[3]], 'those with an error');
    const [first, second, third] = await admin.parked();
    assertEqual([first?.attempts, first?.error, first?.reason], [2, 'refused', 'failed'], 'what failed');
    assert(first?.nextAt instanceof Date && first.nextAt.getTime() > Date.now(), 'when it is tried next');
    assertEqual([second?.attempts, second?.error, second?.nextAt], [0, null, null], 'what is behind it');
    assertEqual(third?.nextAt, third?.message.deliverAt, 'when what is delayed is published');
    assertEqual(await states({ after: second?.seq }), waiting.slice(2), 'those after the second');
  });

  test('lists a message that was due and not tried as it was', async (harness) => {
    await stored(harness, [message()]);
    await using(harness, 'default', async (feed) => {
      const page = await feed.read();
      await feed.settle(page, [failed(page, 0, { retryIn: 0 })]);
      const due = await dueOf(feed);
      await feed.settle(due, [behind(due, 0)]);
    });
    const [parked] = await harness.store.admin.parked();
    const { state, reason, error, attempts } = parked ?? {};
    assertEqual([state, reason, error, attempts], ['retry', 'failed', 'refused', 1], 'parked');
  });

  test('lists nothing of `default` before its first relay', async ({ store }) => {
    assertEqual([await store.admin.deadLetters(), await store.admin.parked()], [[], []], 'lists');
  });
}

function changing<Handle>(test: AdminTest<Handle>): void {
  test('has what was given up tried again, in order, with its attempts counted anew', async (harness) => {
    const { admin } = harness.store;
    const ids = idsOf(await giveUp(harness, [message({ key: 'a' }), message({ key: 'a' })], { dead: true }));
    const [newer] = await stored(harness, [message({ key: 'a' })]);
    assertEqual(await admin.requeue({ key: 'a', dryRun: true }), 2, 'how many it would be');
    assertEqual((await admin.deadLetters()).length, 2, 'dead letters after a dry run');
    assertEqual(await admin.requeue({ key: 'a' }), 2, 'how many');
    assertEqual(await admin.deadLetters(), [], 'dead letters');
    await using(harness, 'default', async (feed) => {
      assert(feed.isParked('a'), 'later messages of the key wait');
      const due = await dueOf(feed);
      assertEqual([idsOf(due.messages), due.attempts], [ids, [0, 0]], 'tried again');
      await feed.settle(due, []);
      assert(!feed.isParked('a'), 'the key goes on');
      assertEqual(idsOf((await feed.read()).messages), [newer?.id], 'read then');
    });
  });

  test('has a key tried again by its first message, whatever the time of one behind it is', async (harness) => {
    const messages = [message({ id: '1', key: 'a' }), message({ id: '2', key: 'a' })];
    await stored(harness, messages);
    await using(harness, 'default', async (feed) => {
      const page = await feed.read();
      await feed.settle(page, [failed(page, 0, { dead: true }), failed(page, 1, { retryIn: HOUR })]);
      assertEqual(await harness.store.admin.requeue({ ids: ['1'] }), 1, 'how many');
      assertEqual(idsOf((await dueOf(feed)).messages), ['1', '2'], 'tried again');
    });
  });

  test('has it tried again by a relay that is running', async (harness) => {
    const { store } = harness;
    await using(harness, 'default', async (feed) => {
      const [only] = await stored(harness, [message({ key: 'a' })]);
      const page = await feed.read();
      await feed.settle(page, [failed(page, 0, { blocked: true })]);
      assertEqual((await feed.retries()).messages, [], 'tried again before');
      assertEqual(await store.admin.requeue({ state: 'blocked' }), 1, 'how many');
      assertEqual(idsOf((await dueOf(feed)).messages), [only?.id], 'tried again');
    });
  });

  test('goes on with a key whose blocked message is discarded', async (harness) => {
    const { admin } = harness.store;
    const [, second] = await stored(harness, [message({ id: '1', key: 'a' }), message({ id: '2', key: 'a' })]);
    await using(harness, 'default', async (feed) => {
      const page = await feed.read();
      await feed.settle(page, [failed(page, 0, { blocked: true }), behind(page, 1)]);
      assertEqual(await admin.discard({ ids: ['1'] }), 1, 'how many');
      const due = await dueOf(feed);
      assertEqual(idsOf(due.messages), [second?.id], 'what waited behind it');
    });
  });

  test('discards what is chosen, and nothing else', async (harness) => {
    const { admin } = harness.store;
    await giveUp(harness, [message({ id: '1', topic: 't' }), message({ id: '2' }), message({ id: '3' })], {
      dead: true,
    });
    const discard = (selection: DeadLetterSelection): Promise<number> => admin.discard(selection);
    assertEqual(await discard({ topic: 't', dryRun: true }), 1, 'a dry run');
    assertEqual(await discard({ topic: 't' }), 1, 'by topic');
    assertEqual(idsOf((await admin.deadLetters()).map((letter) => letter.message)), ['2', '3'], 'left');
    assertEqual(await discard({ until: new Date(Date.now() - HOUR) }), 0, 'by time');
    assertEqual(await discard({ all: true }), 2, 'all');
    assertEqual(await admin.deadLetters(), [], 'left at last');
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

/** Works with a feed of a destination, and closes it. */
async function using<Handle, T>(
  { store }: AdminHarness<Handle>,
  destination: string,
  work: (feed: Feed) => Promise<T>,
): Promise<T> {
  const feed = await store.openFeed({ destination, pageSize: 10, relay: 'relay-of-the-suite' });
  assert(feed !== null, `the feed of ${destination} is held by another relay`);
  try {
    return await work(feed);
  } finally {
    await feed.close();
  }
}

/** Publishes what a destination has: the ids, in order. */
function published<Handle>(harness: AdminHarness<Handle>, destination: string): Promise<unknown[]> {
  return using(harness, destination, async (feed) => {
    const ids: unknown[] = [];
    for (;;) {
      const page = await feed.read();
      if (page.messages.length === 0) return ids;
      ids.push(...idsOf(page.messages));
      await feed.settle(page, []);
    }
  });
}

/** Stores messages, and gives all of them up. */
async function giveUp<Handle>(
  harness: AdminHarness<Handle>,
  messages: readonly Message[],
  how: Partial<ToPark>,
): Promise<readonly Message[]> {
  const given = await stored(harness, messages);
  await using(harness, 'default', async (feed) => {
    const page = await feed.read();
    const toPark = page.messages.map((_, place) => failed(page, place, { attempts: 3, ...how }));
    await feed.settle(page, toPark);
  });
  return given;
}

async function stateOf<Handle>({ store }: AdminHarness<Handle>, name: string) {
  const state = (await store.admin.destinations()).find((each) => each.name === name);
  assert(state !== undefined, `destination ${name} is told of`);
  return state;
}

/** What is due, as soon as anything is. */
async function dueOf(feed: Feed): Promise<Page> {
  let page: Page = { messages: [] };
  await until(async () => (page = await feed.retries()).messages.length > 0, 'messages that are due');
  return page;
}

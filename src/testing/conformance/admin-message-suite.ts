/**
 * The part of the admin suite about messages. It tests how they are listed, requeued and discarded.
 *
 * @module
 */
import type { DeadLetterSelection, DeadLettersOptions, ParkedOptions } from '../../core/contracts/admin.js';
import { newMessage } from '../../core/contracts/message.js';
import { giveUp, using, type AdminTest } from './admin-harness.js';
import { assert, assertEqual } from './assert.js';
import { behind, dueOf, failed, idsOf, later, message, stored } from './store-harness.js';

const HOUR = 3_600_000;

/** Declares the tests for parked messages and dead letters. */
export function adminMessageTests<Handle>(test: AdminTest<Handle>): void {
  listing(test);
  changing(test);
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

  test('lists nothing of `default` before its first relay, and changes nothing', async ({ store: { admin } }) => {
    assertEqual([await admin.deadLetters(), await admin.parked()], [[], []], 'lists');
    const changed = [await admin.requeue({ all: true }), await admin.discard({ all: true })];
    assertEqual([...changed, await admin.discard({ all: true, dryRun: true })], [0, 0, 0], 'how many');
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

/**
 * The part of the store suite about feeds. It tests everything that a relay relies on.
 *
 * @module
 */
import { MessengerError } from '../../core/errors.js';
import type { Feed, Page } from '../../core/contracts/feed.js';
import { newMessage, type Message } from '../../core/contracts/message.js';
import { isFeedStore, type Store } from '../../core/contracts/store.js';
import { assert, assertEqual, rejection, until } from './assert.js';
import {
  behind,
  dueOf,
  failed,
  idsOf,
  later,
  message,
  needed,
  some,
  stored,
  type StoreFeatures,
  type StoreHarness,
  type StoreTest,
} from './store-harness.js';

/** Opens a feed, which is closed at the end of the test. */
type Open = (options?: { destination?: string; pageSize?: number; store?: Store }) => Promise<Feed>;

/** Declares the tests for the `FeedStore` contract. */
export function feedTests<Handle>(declare: StoreTest<Handle>, features: StoreFeatures): void {
  const test = (name: string, body: (harness: StoreHarness<Handle>, open: Open) => Promise<void>): void => {
    declare(`feed: ${name}`, async (harness) => {
      const feeds: Feed[] = [];
      try {
        await body(harness, async ({ destination = 'default', pageSize = 3, store = harness.store } = {}) => {
          const feed = await attempt(store, destination, pageSize);
          assert(feed !== null, 'the feed is held by another relay');
          feeds.push(feed);
          return feed;
        });
      } finally {
        for (const feed of feeds) await feed.close();
      }
    });
  };
  reading(test);
  parking(test);
  holding(test);
  if (features.delayed) delaying(test);
}

type Test<Handle> = (name: string, body: (harness: StoreHarness<Handle>, open: Open) => Promise<void>) => void;

function reading<Handle>(test: Test<Handle>): void {
  test('reads an empty page when there is nothing', async (_, open) => {
    const feed = await open();
    for (const page of [await feed.read(), await feed.retries(), await feed.read()]) {
      assertEqual(page.messages, [], 'messages');
    }
  });

  test('reads ahead of what is settled, in order, in pages no larger than asked for', async (harness, open) => {
    const ids = idsOf(await stored(harness, some(8, ['a', 'b'])));
    const feed = await open();
    const pages = await readAll(feed);
    for (const { messages } of pages) assert(messages.length <= 3, `a page of ${String(messages.length)}`);
    assertEqual(idsOf(pages.flatMap(({ messages }) => messages)), ids, 'read');
    for (const page of pages) await feed.settle(page, []);
    assertEqual((await feed.read()).messages, [], 'read after settling');
    const [later] = await stored(harness, some(1));
    assertEqual(idsOf((await feed.read()).messages), [later?.id], 'read after more was stored');
  });

  test('reads messages again with the next feed if they were not settled', async (harness, open) => {
    const ids = idsOf(await stored(harness, some(8)));
    for (const settled of [0, 1, 1]) {
      const feed = await open({ pageSize: 2 });
      // Read until a page is empty. The read that finds nothing more must settle nothing.
      const pages = await readAll(feed);
      for (const page of pages.slice(0, settled)) await feed.settle(page, []);
      assertEqual(idsOf(pages.flatMap(({ messages }) => messages)), ids, 'read');
      ids.splice(0, settled * 2);
      await feed.close();
    }
    const feed = await open({ pageSize: 2 });
    await feed.settle(await feed.read(), []);
    ids.splice(0, 2);
    await readAll(feed);
    await feed.close();
    assertEqual(idsOf((await (await open()).read()).messages), ids, 'read at last');
  });

  test('finds at once what was stored after the last page of the former feed', async (harness, open) => {
    await stored(harness, some(2));
    const feed = await open({ pageSize: 2 });
    await feed.settle(await feed.read(), []);
    await feed.close();
    const [since] = await stored(harness, some(1));
    assertEqual(idsOf((await (await open({ pageSize: 2 })).read()).messages), [since?.id], 'the first page');
  });

  test('settles pages in their order without waiting for each', async (harness, open) => {
    await stored(harness, some(9));
    const feed = await open();
    const settling: Promise<void>[] = [];
    for (;;) {
      const page = await feed.read();
      if (page.messages.length === 0) break;
      settling.push(feed.settle(page, []));
    }
    await Promise.all(settling);
    await feed.close();
    assertEqual((await (await open()).read()).messages, [], 'read again');
  });

  test('gives every destination every message', async (harness, open) => {
    const ids = idsOf(await stored(harness, some(2)));
    const [first, second] = [await open(), await open({ destination: 'ÿ "other" \'destination\'' })];
    for (const feed of [first, second]) {
      const page = await feed.read();
      assertEqual(idsOf(page.messages), ids, 'read');
      await feed.settle(page, []);
    }
  });
}

function parking<Handle>(test: Test<Handle>): void {
  test('keeps the key of a parked message waiting, from the call of settle on', async (harness, open) => {
    const [a1, b1, c1, a2] = await stored(harness, some(4, ['a', 'b', 'c']));
    const feed = await open();
    const [page, next] = [await feed.read(), await feed.read()];
    assertEqual([idsOf(page.messages), idsOf(next.messages)], [idsOf([a1, b1, c1]), idsOf([a2])], 'pages');
    assert(!feed.isParked('a'), 'a key is parked before any of its messages failed');
    const settled = feed.settle(page, [failed(page, 0, { retryIn: 60_000 })]);
    assert(feed.isParked('a') && !feed.isParked('b'), 'only the key of the failed message is parked');
    await settled;
    await feed.settle(next, [behind(next, 0)]);
    assertEqual((await feed.read()).messages, [], 'new messages');
    assertEqual((await feed.retries()).messages, [], 'messages that are due');
    await feed.close();
    const again = await open();
    assert(again.isParked('a') && !again.isParked('b'), 'the next feed knows the parked keys');
    assertEqual((await again.read()).messages, [], 'new messages of the next feed');
    assertEqual((await again.retries()).messages, [], 'messages of the next feed that are due');
  });

  test('retries due messages in order per key, counts attempts, and lets a drained key continue', async (harness, open) => {
    const [a1, b1, a2, b2, a3] = await stored(harness, some(5, ['a', 'b']));
    const feed = await open({ pageSize: 10 });
    const page = await feed.read();
    await feed.settle(page, [
      failed(page, 0, { retryIn: 0 }),
      failed(page, 1, { retryIn: 600_000 }),
      behind(page, 2),
      behind(page, 3),
      behind(page, 4),
    ]);
    const due = await dueOf(feed);
    assertEqual(idsOf(due.messages), idsOf([a1, a2, a3]), 'due');
    assertEqual(due.attempts, [1, 0, 0], 'attempts');
    assertEqual([...(due.messages[0]?.payload ?? [])], [...(a1?.payload ?? [])], 'payload');
    // The first was published, the second failed, the third waits behind the second.
    await feed.settle(due, [failed(due, 1, { attempts: 1, retryIn: 30 }), behind(due, 2)]);
    assert(feed.isParked('a'), 'the key waits for its remaining messages');
    const rest = await dueOf(feed);
    assertEqual([idsOf(rest.messages), rest.attempts], [idsOf([a2, a3]), [1, 0]], 'due then');
    await feed.settle(rest, []);
    assert(!feed.isParked('a'), 'a drained key is no longer parked');
    assert(feed.isParked('b'), 'the other key still is');
    assertEqual((await feed.retries()).messages, [], 'due at last');
    assertEqual([b1?.key, b2?.key], ['b', 'b'], 'keys');
  });

  test('returns a key in order when it is larger than a page', async (harness, open) => {
    const messages = await stored(harness, some(7, ['a']));
    const feed = await open({ pageSize: 10 });
    const page = await feed.read();
    await feed.settle(page, [
      failed(page, 0, { retryIn: 1 }),
      ...[1, 2, 3, 4, 5, 6].map((place) => behind(page, place)),
    ]);
    await feed.close();
    const small = await open({ pageSize: 3 });
    const ids: unknown[] = [];
    while (small.isParked('a')) {
      const due = await dueOf(small);
      ids.push(...idsOf(due.messages));
      await small.settle(due, []);
    }
    assertEqual(ids, idsOf(messages), 'retried');
  });

  test('retries at once a message that was not tried', async (harness, open) => {
    const messages = await stored(harness, some(4, ['a', undefined]));
    const feed = await open({ pageSize: 4 });
    const page = await feed.read();
    await feed.settle(
      page,
      [0, 1, 2, 3].map((place) => behind(page, place)),
    );
    const due = await dueOf(feed);
    assertEqual([idsOf(due.messages), due.attempts], [idsOf(messages), [0, 0, 0, 0]], 'due');
    // These messages were not tried again, so they stay due.
    await feed.settle(due, [behind(due, 0), behind(due, 1), behind(due, 2)]);
    const left = await dueOf(feed);
    assertEqual(idsOf(left.messages), idsOf(messages.slice(0, 3)), 'due again');
  });

  test('retries what is outstanding, and what is behind it, once it is settled again', async (harness, open) => {
    const [a1, a2, b1] = await stored(harness, [...some(2, ['a']), message({ key: 'b' })]);
    const feed = await open();
    const page = await feed.read();
    await feed.settle(page, [
      failed(page, 0, { outstanding: true, retryIn: 0 }),
      behind(page, 1),
      failed(page, 2, { retryIn: 1 }),
    ]);
    const due = await dueOf(feed);
    assertEqual(idsOf(due.messages), [b1?.id], 'due while the call is not answered');
    await feed.settle(due, []);
    await feed.settle({ messages: page.messages.slice(0, 1) }, []);
    assertEqual(idsOf((await dueOf(feed)).messages), [a2?.id], 'due once it is answered');
    await feed.close();
    const messages = await stored(harness, [message({ key: 'c' })]);
    const second = await open();
    const next = await second.read();
    assertEqual(idsOf(next.messages), idsOf(messages), 'read');
    await second.settle(next, [failed(next, 0, { outstanding: true, retryIn: 0 })]);
    await second.close();
    const third = await open();
    const left = await dueOf(third);
    assertEqual(idsOf(left.messages), idsOf([a2, ...messages]), 'due at another feed');
    assert(a1 !== undefined, 'stored');
  });

  test('keeps dead letters, never returns them, and lets their key continue', async (harness, open) => {
    const [a1, a2, k1] = await stored(harness, [...some(2, ['a']), message()]);
    const feed = await open();
    const page = await feed.read();
    await feed.settle(page, [
      failed(page, 0, { dead: true }),
      failed(page, 1, { retryIn: 10 }),
      failed(page, 2, { dead: true }),
    ]);
    const due = await dueOf(feed);
    assertEqual(idsOf(due.messages), [a2?.id], 'due');
    await feed.settle(due, [failed(due, 0, { attempts: 2, dead: true })]);
    assert(!feed.isParked('a'), 'nothing but dead letters of the key is left');
    await feed.close();
    const again = await open();
    assert(!again.isParked('a'), 'the next feed sees that the key continues');
    for (const { messages } of [await again.retries(), await again.read()]) assertEqual(messages, [], 'messages');
    await harness.store.deletePublishedByExpiration(0);
    assertEqual([...(await harness.kept())].sort(), idsOf([a1, a2, k1]).sort(), 'dead letters kept');
  });

  test('parks a message without a key alone', async (harness, open) => {
    const [k1, k2, k3] = await stored(harness, some(3));
    const feed = await open();
    const page = await feed.read();
    await feed.settle(page, [failed(page, 1, { retryIn: 10 })]);
    const due = await dueOf(feed);
    assertEqual([idsOf(due.messages), due.attempts], [[k2?.id], [1]], 'due');
    await feed.settle(due, []);
    assertEqual((await feed.retries()).messages, [], 'due then');
    assert(k1 !== undefined && k3 !== undefined, 'stored');
  });

  test('keeps errors with any text, and parked messages with any content', async (harness, open) => {
    const odd = newMessage('"odd"', { key: '\'; -- \\ " {a,b} 名', topic: 'NULL', metadata: { a: '\\' } });
    await stored(harness, [odd]);
    const feed = await open();
    const page = await feed.read();
    const error = new Error(`\u0000 \ud800 ${'x'.repeat(100_000)} ' " \\`);
    await feed.settle(page, [{ ...failed(page, 0, { retryIn: 1 }), error }]);
    const due = await dueOf(feed);
    const view = ({ id, key, topic, metadata, payload }: Message): unknown => [id, key, topic, metadata, [...payload]];
    assertEqual(due.messages.map(view), [view(odd)], 'due');
    await feed.settle(due, []);
    assert(!feed.isParked(odd.key ?? ''), 'drained');
  });

  test('settles parked messages while a page is being settled, and keeps both', async (harness, open) => {
    await stored(harness, some(6, [undefined]));
    const feed = await open();
    const first = await feed.read();
    await feed.settle(first, [failed(first, 0, { retryIn: 1 })]);
    const second = await feed.read();
    const due = await dueOf(feed);
    await Promise.all([feed.settle(second, []), feed.settle(due, [])]);
    await feed.close();
    const again = await open();
    for (const { messages } of [await again.retries(), await again.read()]) assertEqual(messages, [], 'messages left');
  });
}

function holding<Handle>(test: Test<Handle>): void {
  test('is held by one relay at a time, and is free once it is closed', async (harness, open) => {
    const feed = await open();
    assert(!feed.lost.aborted, 'lost as soon as it is open');
    assertEqual(await attempt(harness.store, 'default', 3), null, 'a second feed');
    await feed.close();
    await feed.close();
    const next = await open();
    assertEqual(
      [feed.lost.aborted, next.lost.aborted],
      [true, false],
      'the closed feed is lost, but the next one is not',
    );
    const [only] = await stored(harness, some(1));
    const page = await next.read();
    const late = await rejection(feed.settle(page, [failed(page, 0, { dead: true })]), 'settle of the closed feed');
    assertEqual((late as MessengerError).code, 'LEASE_LOST', 'code');
    await next.close();
    assertEqual(idsOf((await (await open()).read()).messages), [only?.id], 'read by the next feed');
  });

  test('is taken over once the lease has expired, and the old holder changes nothing more', async (harness, open) => {
    const messages = await stored(harness, some(6, ['a']));
    const old = await open({ pageSize: 2 });
    const [first, second] = [await old.read(), await old.read()];
    await old.settle(first, []);
    await needed(harness.expireLease, 'expireLease')('default');
    const next = await open({ pageSize: 2 });
    const error = await rejection(old.settle(second, []), 'settle of the old holder');
    assert(error instanceof MessengerError, `expected a MessengerError, got ${String(error)}`);
    assertEqual(error.code, 'LEASE_LOST', 'code');
    assert(old.lost.aborted, 'the old holder knows that it lost the lease');
    await old.close();
    assert(!next.lost.aborted, 'the new holder still has it');
    const pages = await readAll(next);
    assertEqual(idsOf(pages.flatMap((page) => page.messages)), idsOf(messages.slice(2)), 'read by the new holder');
    for (const page of pages) await next.settle(page, []);
    await next.close();
    assertEqual((await (await open()).read()).messages, [], 'read at last');
  });
}

function delaying<Handle>(test: Test<Handle>): void {
  const HOUR = 3_600_000;

  test('reads past delayed messages, however many there are, and never reads them again', async (harness, open) => {
    const many = (): Message[] => Array.from({ length: 8 }, () => later(HOUR, { key: 'a' }));
    const [x1, x2, x3] = some(3, ['a']);
    const messages = [...many(), x1 as Message, ...many(), x2 as Message, ...many()];
    await stored(harness, messages);
    const feed = await open();
    assertEqual(idsOf(await drained(feed)), idsOf([x1, x2]), 'read');
    assert(!feed.isParked('a'), 'a delayed message holds up its key');
    await stored(harness, [x3 as Message]);
    assertEqual(idsOf(await drained(feed)), idsOf([x3]), 'read after it');
    await feed.close();
    const again = await open();
    assert(!again.isParked('a'), 'a delayed message holds up its key, for the next feed');
    for (const { messages } of [await again.read(), await again.retries()]) assertEqual(messages, [], 'messages left');
  });

  test('keeps delayed messages with the pages between which they were read, until these are settled', async (harness, open) => {
    const messages = [message(), ...Array.from({ length: 4 }, () => later(HOUR)), message(), later(HOUR)];
    await stored(harness, messages);
    const first = await open({ pageSize: 1 });
    // No page is settled, so the next feed reads all of these messages again.
    for (let i = 0; i < 10; i++) await first.read();
    await first.close();
    const second = await open({ pageSize: 1 });
    const [page, next] = [await second.read(), await second.read()];
    await second.settle(page, []);
    if (next.messages.length > 0) await second.settle(next, []);
    const ids = [...idsOf(page.messages), ...idsOf(next.messages), ...idsOf(await drained(second))];
    assertEqual(ids, idsOf([messages[0], messages[5]]), 'read');
    await second.close();
    await needed(harness.makeDue, 'makeDue')();
    const third = await open();
    const due = [...(await drained(third)), ...(await drained(third, () => third.retries()))];
    assertEqual(idsOf(due).sort(), idsOf([1, 2, 3, 4, 6].map((place) => messages[place])).sort(), 'due');
  });

  test('retries a delayed message alone when it fails', async (harness, open) => {
    const [a1, a2] = await stored(harness, [later(HOUR, { key: 'a' }), message({ key: 'a' })]);
    const feed = await open();
    assertEqual(idsOf(await drained(feed)), [a2?.id], 'read');
    await needed(harness.makeDue, 'makeDue')();
    const due = await feed.retries();
    assertEqual([idsOf(due.messages), due.attempts], [[a1?.id], [0]], 'due');
    await feed.settle(due, [failed(due, 0, { retryIn: 1 })]);
    assert(!feed.isParked('a'), 'a delayed message that failed holds up its key');
    const [a3] = await stored(harness, [message({ key: 'a' })]);
    assertEqual(idsOf(await drained(feed)), [a3?.id], 'read while it waits');
    const again = await dueOf(feed);
    assertEqual([idsOf(again.messages), again.attempts], [[a1?.id], [1]], 'due again');
    await feed.settle(again, []);
    assertEqual((await feed.retries()).messages, [], 'due at last');
  });

  test('leaves a delayed message alone when its key fails, and the key alone when the delayed message fails', async (harness, open) => {
    const [a1, a2, a3] = await stored(harness, [
      later(HOUR, { key: 'a' }),
      message({ key: 'a' }),
      message({ key: 'a' }),
    ]);
    const feed = await open();
    const page = await feed.read();
    await feed.settle(page, [failed(page, 0, { retryIn: 10 * HOUR }), behind(page, 1)]);
    await needed(harness.makeDue, 'makeDue')();
    const due = await feed.retries();
    assertEqual([idsOf(page.messages), idsOf(due.messages)], [idsOf([a2, a3]), [a1?.id]], 'read, and due');
    await feed.settle(due, [failed(due, 0, { dead: true })]);
    assert(feed.isParked('a'), 'the key continues although its first message has failed');
    assertEqual((await feed.retries()).messages, [], 'due then');
  });

  test('retries a key up to the message that holds it, and no further', async (harness, open) => {
    const hold = { key: 'a', holdKey: true };
    const [a1, a2, a3] = await stored(harness, [
      message({ key: 'a' }),
      later(HOUR, hold),
      message({ key: 'a' }),
      message({ key: 'b' }),
    ]);
    const feed = await open({ pageSize: 10 });
    const page = await feed.read();
    await feed.settle(page, [failed(page, 0, { retryIn: 1 })]);
    assert(feed.isParked('a') && !feed.isParked('b'), 'only that key is held up');
    const due = await dueOf(feed);
    assertEqual(idsOf(due.messages), [a1?.id], 'due');
    await feed.settle(due, []);
    assert(feed.isParked('a'), 'the delayed message holds up the key');
    assertEqual((await feed.retries()).messages, [], 'due then');
    assert(a2 !== undefined && a3 !== undefined, 'stored');
  });

  test('holds up a key from the moment when the message is read, and then continues it in order', async (harness, open) => {
    const [x1, a1, a2, a3] = await stored(harness, [
      message(),
      later(HOUR, { key: 'a', holdKey: true }),
      message({ key: 'a' }),
      message({ key: 'a' }),
    ]);
    const feed = await open({ pageSize: 2 });
    const [page, next] = [await feed.read(), await feed.read()];
    assertEqual([idsOf(page.messages), idsOf(next.messages)], [[x1?.id], []], 'pages');
    await feed.settle(page, []);
    assertEqual((await feed.read()).messages, [], 'read after it');
    await feed.close();
    const again = await open({ pageSize: 2 });
    assert(again.isParked('a'), 'the next feed knows that the key is held up');
    assertEqual((await again.retries()).messages, [], 'due before its time');
    await needed(harness.makeDue, 'makeDue')();
    const due = await again.retries();
    assertEqual(idsOf(due.messages), idsOf([a1, a2]), 'due');
    await again.settle(due, [failed(due, 0, { retryIn: 1 }), behind(due, 1)]);
    assert(again.isParked('a'), 'the key waits for the message that holds it and failed');
    const ids: unknown[] = [];
    while (again.isParked('a')) {
      const retried = await dueOf(again);
      ids.push(...idsOf(retried.messages));
      await again.settle(retried, []);
    }
    assertEqual(ids, idsOf([a1, a2, a3]), 'retried');
  });

  test('gives a message that holds its key after those that were read before it', async (harness, open) => {
    const [a1, a2] = await stored(harness, [message({ key: 'a' }), later(HOUR, { key: 'a', holdKey: true })]);
    const feed = await open({ pageSize: 1 });
    const page = await feed.read();
    assertEqual([idsOf(page.messages), (await feed.read()).messages], [[a1?.id], []], 'pages');
    await needed(harness.makeDue, 'makeDue')();
    assertEqual((await feed.retries()).messages, [], 'due before the first is settled');
    await feed.settle(page, []);
    const ids: unknown[] = [];
    await until(async () => {
      for (const next of [await feed.read(), await feed.retries()]) {
        ids.push(...idsOf(next.messages));
        if (next.messages.length > 0) await feed.settle(next, []);
      }
      return ids.length > 0;
    }, 'the message that held its key');
    assertEqual(ids, [a2?.id], 'given then');
  });

  test('loses no delayed message when the lease is taken over', async (harness, open) => {
    const [x1, a1, b1] = await stored(harness, [message(), later(HOUR, { key: 'a', holdKey: true }), later(HOUR)]);
    const old = await open();
    const page = await old.read();
    await needed(harness.expireLease, 'expireLease')('default');
    const next = await open();
    await rejection(old.settle(page, []), 'settle of the old holder');
    assertEqual(idsOf(await drained(next)), [x1?.id], 'read by the new holder');
    await needed(harness.makeDue, 'makeDue')();
    assertEqual(idsOf(await drained(next, () => next.retries())), idsOf([a1, b1]), 'due');
  });
}

/** Gets pages from `next`, and settles their messages as published, until nothing is left. */
async function drained(feed: Feed, next: () => Promise<Page> = () => feed.read()): Promise<Message[]> {
  const messages: Message[] = [];
  for (;;) {
    const page = await next();
    if (page.messages.length === 0) return messages;
    messages.push(...page.messages);
    await feed.settle(page, []);
  }
}

function attempt(store: Store, destination: string, pageSize: number): Promise<Feed | null> {
  assert(isFeedStore(store), 'openFeed is declared, but missing');
  return store.openFeed({ destination, pageSize });
}

/** Reads until a page is empty. */
async function readAll(feed: Feed): Promise<Page[]> {
  const pages: Page[] = [];
  for (;;) {
    const page = await feed.read();
    if (page.messages.length === 0) return pages;
    pages.push(page);
  }
}

/**
 * What the suites of an `admin` are given, and what they do with it.
 *
 * @module
 */
import type { OutboxAdmin } from '../../core/contracts/admin.js';
import type { Feed, ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import type { FeedStore } from '../../core/contracts/store.js';
import { assert } from './assert.js';
import { failed, idsOf, stored, type StoreHarness, type StoreSuite, type TestedStore } from './store-harness.js';

/** One store over an empty place of its own. Its role may do all that an operator and a relay do. */
export interface AdminHarness<Handle> extends Pick<StoreHarness<Handle>, 'transaction' | 'close'> {
  readonly store: FeedStore & TestedStore<Handle> & { readonly admin: OutboxAdmin };
}

/** What the suite needs. */
export interface AdminSuite<Handle> extends Pick<StoreSuite<Handle>, 'it'> {
  /** A new harness: called once per test. */
  readonly create: () => Promise<AdminHarness<Handle>>;
}

/** Declares a test that gets a harness of its own. */
export type AdminTest<Handle> = (name: string, body: (harness: AdminHarness<Handle>) => Promise<void>) => void;

/** Works with a feed of a destination, and closes it. */
export async function using<Handle, T>(
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
export function published<Handle>(harness: AdminHarness<Handle>, destination: string): Promise<unknown[]> {
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
export async function giveUp<Handle>(
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

export async function stateOf<Handle>({ store }: AdminHarness<Handle>, name: string) {
  const state = (await store.admin.destinations()).find((each) => each.name === name);
  assert(state !== undefined, `destination ${name} is told of`);
  return state;
}

/**
 * The harness for the admin suites, and helpers for their tests.
 *
 * @module
 */
import type { OutboxAdmin } from '../../core/contracts/admin.js';
import type { Feed, ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import type { FeedStore } from '../../core/contracts/store.js';
import { assert } from './assert.js';
import { failed, idsOf, stored, type StoreHarness, type StoreSuite, type TestedStore } from './store-harness.js';

/** One store with empty storage of its own. Its role may do everything that an operator and a relay do. */
export interface AdminHarness<Handle> extends Pick<StoreHarness<Handle>, 'transaction' | 'close'> {
  readonly store: FeedStore & TestedStore<Handle> & { readonly admin: OutboxAdmin };
}

/** The parameters of the suite. */
export interface AdminSuite<Handle> extends Pick<StoreSuite<Handle>, 'it'> {
  /** Creates a new harness. Called once per test. */
  readonly create: () => Promise<AdminHarness<Handle>>;
}

/** Declares a test that gets its own harness. */
export type AdminTest<Handle> = (name: string, body: (harness: AdminHarness<Handle>) => Promise<void>) => void;

/** Opens a feed for a destination, runs `work` with the feed, and closes it. */
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

/** Publishes all messages that a destination has, and resolves to their ids, in order. */
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

/** Stores messages, and parks all of them as failed. `how` contains further properties, such as `{ dead: true }`. */
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

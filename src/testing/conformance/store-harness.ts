/**
 * What the store suite is given, and the messages that it stores.
 *
 * @module
 */
import { newMessage, type Message, type NewMessageOptions } from '../../core/contracts/message.js';
import type { Feed, Page, ToPark } from '../../core/contracts/feed.js';
import type { Store } from '../../core/contracts/store.js';
import { assert, until } from './assert.js';

/** What a store declares to be able to do. What it declares not to, it must refuse: the suite tests that. */
export interface StoreFeatures {
  /** Two transactions can be open at once. False: what needs two is not tested. */
  readonly concurrentTransactions: boolean;
  /** A part of a transaction can be rolled back; the harness has `savepoint`. False: not tested. */
  readonly savepoints: boolean;
  /** `add` sees that the transaction of a handle is over, and refuses it. False: the client does not tell, and it is not tested. */
  readonly refusesEndedTransactions: boolean;
  /** Payloads must be JSON, and anything else is refused. False: any bytes are kept. */
  readonly jsonPayloadsOnly: boolean;
  /** What is stored outlives the store; the harness has `reopen`. False: not tested. */
  readonly persistent: boolean;
  /** `published` takes what any call of `messages` returned. False: it refuses what was not from the last one. */
  readonly remembersListed: boolean;
  /** A published message is deleted beside one that is not. False: it may stay as long as that one. */
  readonly cleansSingly: boolean;
  /** A message with `deliverAt` is not listed before its time, and one with `holdKey` holds its key up. False: not tested. */
  readonly delayed: boolean;
  /** It has `openFeed`, for relays with leases and parked failures. False: it must not have it. */
  readonly feeds: boolean;
}

/** A store with the `add` that applications call. */
export interface TestedStore<Handle> extends Store {
  add(transaction: Handle, messages: Message | readonly Message[]): Promise<readonly Message[]>;
}

/** One store over an empty place of its own. */
export interface StoreHarness<Handle> {
  readonly store: TestedStore<Handle>;
  /** Runs `work` in a transaction: commits when it resolves; rolls back, and rejects alike, when it rejects. */
  readonly transaction: <T>(work: (handle: Handle) => Promise<T>) => Promise<T>;
  /** Runs `work` in a part of a transaction, which is rolled back alone when it rejects; and rejects alike. */
  readonly savepoint?: (handle: Handle, work: (handle: Handle) => Promise<void>) => Promise<void>;
  /** The ids of all messages that are still stored, published or not. */
  readonly kept: () => Promise<readonly string[]>;
  /** Ends the store, and resolves to a new one over the same data. */
  readonly reopen?: () => Promise<TestedStore<Handle>>;
  /** For `feeds`: lets the lease of a destination run out, as it does for a relay that died. */
  readonly expireLease?: (destination: string) => Promise<void>;
  /** For `feeds` that are `delayed`: lets the time of every message with `deliverAt` come. */
  readonly makeDue?: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** What the suite needs. */
export interface StoreSuite<Handle> {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** A new harness: called once per test. */
  readonly create: () => Promise<StoreHarness<Handle>>;
  readonly features: StoreFeatures;
}

/** Declares a test that gets a harness of its own. */
export type StoreTest<Handle> = (name: string, body: (harness: StoreHarness<Handle>) => Promise<void>) => void;

/** A message that every store takes. */
export function message(options: NewMessageOptions = {}): Message {
  return newMessage('{"n":1}', options);
}

/** Messages whose keys repeat. */
export function some(count: number, keys: readonly (string | undefined)[] = [undefined]): Message[] {
  return Array.from({ length: count }, (_, i) =>
    newMessage(JSON.stringify({ n: i }), { key: keys[i % keys.length], topic: 'suite', metadata: { n: String(i) } }),
  );
}

/** A message that is to be delivered so many milliseconds from now, by this machine's clock. */
export function later(ms: number, options: NewMessageOptions = {}): Message {
  return message({ deliverAt: new Date(Date.now() + ms), ...options });
}

/** Stores messages in a transaction of their own. */
export function stored<Handle>(
  { store, transaction }: Pick<StoreHarness<Handle>, 'store' | 'transaction'>,
  messages: readonly Message[],
): Promise<readonly Message[]> {
  return transaction((handle) => store.add(handle, messages));
}

export function idsOf(messages: readonly (Message | undefined)[]): (string | undefined)[] {
  return messages.map((each) => each?.id);
}

/** A member of the harness that a declared feature needs. */
export function needed<T>(member: T | undefined, name: string): T {
  assert(member !== undefined, `the harness must have ${name} for the features declared`);
  return member;
}

/** A message of a page that failed: tried again, unless more is said. */
export function failed(page: Page, place: number, more: Partial<ToPark>): ToPark {
  return { message: page.messages[place] as Message, attempts: 1, error: new Error('refused'), dead: false, ...more };
}

/** A message that was not tried: it waits behind an earlier one of its key, or the relay was stopped. */
export function behind(page: Page, place: number): ToPark {
  return { message: page.messages[place] as Message, attempts: page.attempts?.[place] ?? 0, dead: false };
}

/** Waits until messages are due, and returns them. */
export async function dueOf(feed: Feed): Promise<Page> {
  let page: Page = { messages: [] };
  await until(async () => (page = await feed.retries()).messages.length > 0, 'messages that are due');
  return page;
}

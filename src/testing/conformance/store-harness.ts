/**
 * What the store suite needs, and the messages that it stores.
 *
 * @module
 */
import { newMessage, type Message, type NewMessageOptions } from '../../core/contracts/message.js';
import type { Feed, Page, ToPark } from '../../core/contracts/feed.js';
import type { Store } from '../../core/contracts/store.js';
import { assert, until } from './assert.js';

/** What a store declares that it can do. The suite tests that the store refuses what it declares that it cannot do. */
export interface StoreFeatures {
  /** Two transactions can be open at once. If false, tests that need two are left out. */
  readonly concurrentTransactions: boolean;
  /** A part of a transaction can be rolled back, and the harness has `savepoint`. If false, this is not tested. */
  readonly savepoints: boolean;
  /**
   * `add` recognises that the transaction of a handle has ended, and refuses the handle. If false, the client does not
   * tell, and this is not tested.
   */
  readonly refusesEndedTransactions: boolean;
  /** Payloads must be JSON, and anything else is refused. If false, any bytes are kept. */
  readonly jsonPayloadsOnly: boolean;
  /** What is stored outlives the store, and the harness has `reopen`. If false, this is not tested. */
  readonly persistent: boolean;
  /**
   * `published` accepts messages that any call of `messages` returned. If false, it refuses messages that the last call
   * did not return.
   */
  readonly remembersListed: boolean;
  /**
   * A published message is deleted even if a message beside it is not published. If false, it may stay as long as that
   * message.
   */
  readonly cleansSingly: boolean;
  /**
   * A message with `deliverAt` is not listed before its time, and one with `holdKey` holds its key up. If false, this
   * is not tested.
   */
  readonly delayed: boolean;
  /**
   * The store has `openFeed`, for relays with leases, and for parking failed messages. If false, it must not have it.
   */
  readonly feeds: boolean;
}

/** A store with the `add` that applications call. */
export interface TestedStore<Handle> extends Store {
  add(transaction: Handle, messages: Message | readonly Message[]): Promise<readonly Message[]>;
}

/** One store, on an empty place of its own. */
export interface StoreHarness<Handle> {
  readonly store: TestedStore<Handle>;
  /**
   * Runs `work` in a transaction. Commits if it resolves. If it rejects, rolls back and rejects with the same error.
   */
  readonly transaction: <T>(work: (handle: Handle) => Promise<T>) => Promise<T>;
  /**
   * Runs `work` in a part of a transaction. If it rejects, only that part is rolled back, and this rejects with the
   * same error.
   */
  readonly savepoint?: (handle: Handle, work: (handle: Handle) => Promise<void>) => Promise<void>;
  /** The ids of all messages that are still stored, published or not. */
  readonly kept: () => Promise<readonly string[]>;
  /** Ends the store, and resolves to a new one on the same data. */
  readonly reopen?: () => Promise<TestedStore<Handle>>;
  /** For `feeds`: lets the lease of a destination expire, as the lease of a relay that died does. */
  readonly expireLease?: (destination: string) => Promise<void>;
  /** For `feeds` that are `delayed`: makes every message with `deliverAt` due. */
  readonly makeDue?: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** What the suite needs. */
export interface StoreSuite<Handle> {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** Creates a new harness. Called once per test. */
  readonly create: () => Promise<StoreHarness<Handle>>;
  readonly features: StoreFeatures;
}

/** Declares a test that gets a harness of its own. */
export type StoreTest<Handle> = (name: string, body: (harness: StoreHarness<Handle>) => Promise<void>) => void;

/** A message that every store accepts. */
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

/** A member that the harness must have for a declared feature. */
export function needed<T>(member: T | undefined, name: string): T {
  assert(member !== undefined, `the harness must have ${name} for the declared features`);
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

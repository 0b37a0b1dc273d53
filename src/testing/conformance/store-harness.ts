/**
 * The harness for the store suite, and the messages that its tests store.
 *
 * @module
 */
import { newMessage, type Message, type NewMessageOptions } from '../../core/contracts/message.js';
import type { Feed, Page, ToPark } from '../../core/contracts/feed.js';
import type { Store } from '../../core/contracts/store.js';
import { assert, until } from './assert.js';

/** The features that a store declares. The suite also tests that the store rejects what it declares as unsupported. */
export interface StoreFeatures {
  /** Two transactions can be open at once. If false, tests that need two are left out. */
  readonly concurrentTransactions: boolean;
  /** A part of a transaction can be rolled back, and the harness has `savepoint`. If false, this is not tested. */
  readonly savepoints: boolean;
  /**
   * `add` recognises that a handle's transaction has ended, and rejects the handle. If false, the client does not
   * report this, and it is not tested.
   */
  readonly refusesEndedTransactions: boolean;
  /** Payloads must be JSON, and anything else is rejected. If false, any bytes are kept. */
  readonly jsonPayloadsOnly: boolean;
  /** Stored messages outlive the store object, and the harness has `reopen`. If false, this is not tested. */
  readonly persistent: boolean;
  /**
   * `published` accepts messages that any call of `messages` returned. If false, it rejects messages that the last call
   * did not return.
   */
  readonly remembersListed: boolean;
  /**
   * Cleaning deletes a published message even if a message next to it is unpublished. If false, the published message
   * may stay for as long as the unpublished one.
   */
  readonly cleansSingly: boolean;
  /**
   * A message with `deliverAt` is not listed before that time, and a message with `holdKey` makes later messages with
   * its key wait. If false, this is not tested.
   */
  readonly delayed: boolean;
  /**
   * The store has `openFeed`, for relays with leases, and for parking failed messages. If false, it must not have this
   * method.
   */
  readonly feeds: boolean;
}

/** A store with the `add` that applications call. */
export interface TestedStore<Handle> extends Store {
  add(transaction: Handle, messages: Message | readonly Message[]): Promise<readonly Message[]>;
}

/** One store with empty storage of its own. */
export interface StoreHarness<Handle> {
  readonly store: TestedStore<Handle>;
  /**
   * Runs `work` in a transaction. Commits if it resolves. If it rejects, rolls back and rejects with the same error.
   */
  readonly transaction: <T>(work: (handle: Handle) => Promise<T>) => Promise<T>;
  /**
   * Runs `work` in a part of a transaction. If it rejects, only that part is rolled back, and the call rejects with the
   * same error.
   */
  readonly savepoint?: (handle: Handle, work: (handle: Handle) => Promise<void>) => Promise<void>;
  /** The ids of all messages that are still stored, published or not. */
  readonly kept: () => Promise<readonly string[]>;
  /** Closes the store, and resolves to a new store with the same data. */
  readonly reopen?: () => Promise<TestedStore<Handle>>;
  /** For `feeds`: makes the lease on a destination expire, like the lease of a relay that died. */
  readonly expireLease?: (destination: string) => Promise<void>;
  /** For `feeds` with `delayed`: makes every message with `deliverAt` due. */
  readonly makeDue?: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** The parameters of the suite. */
export interface StoreSuite<Handle> {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** Creates a new harness. Called once per test. */
  readonly create: () => Promise<StoreHarness<Handle>>;
  readonly features: StoreFeatures;
}

/** Declares a test that gets its own harness. */
export type StoreTest<Handle> = (name: string, body: (harness: StoreHarness<Handle>) => Promise<void>) => void;

/** A message that every store accepts. */
export function message(options: NewMessageOptions = {}): Message {
  return newMessage('{"n":1}', options);
}

/** Returns `count` messages that use these keys in turn. */
export function some(count: number, keys: readonly (string | undefined)[] = [undefined]): Message[] {
  return Array.from({ length: count }, (_, i) =>
    newMessage(JSON.stringify({ n: i }), { key: keys[i % keys.length], topic: 'suite', metadata: { n: String(i) } }),
  );
}

/** A message with a delivery time `ms` milliseconds from now, by this machine's clock. */
export function later(ms: number, options: NewMessageOptions = {}): Message {
  return message({ deliverAt: new Date(Date.now() + ms), ...options });
}

/** Stores messages in a separate transaction. */
export function stored<Handle>(
  { store, transaction }: Pick<StoreHarness<Handle>, 'store' | 'transaction'>,
  messages: readonly Message[],
): Promise<readonly Message[]> {
  return transaction((handle) => store.add(handle, messages));
}

export function idsOf(messages: readonly (Message | undefined)[]): (string | undefined)[] {
  return messages.map((each) => each?.id);
}

/** Returns a member that the harness must have for a declared feature. Throws if it is missing. */
export function needed<T>(member: T | undefined, name: string): T {
  assert(member !== undefined, `the harness must have ${name} for the declared features`);
  return member;
}

/** A failed message from a page. It is tried again, unless `more` says otherwise. */
export function failed(page: Page, place: number, more: Partial<ToPark>): ToPark {
  return { message: page.messages[place] as Message, attempts: 1, error: new Error('refused'), dead: false, ...more };
}

/**
 * A message that was not tried, because it waits behind an earlier message with the same key, or because the relay was
 * stopped.
 */
export function behind(page: Page, place: number): ToPark {
  return { message: page.messages[place] as Message, attempts: page.attempts?.[place] ?? 0, dead: false };
}

/** Waits until messages are due, and returns them. */
export async function dueOf(feed: Feed): Promise<Page> {
  let page: Page = { messages: [] };
  await until(async () => (page = await feed.retries()).messages.length > 0, 'messages that are due');
  return page;
}

/** Publishers, loggers and a store with feeds that do what a test tells them, and record what was asked of them. */
import { MessengerError, PublishError, toError, type FailureKind } from '../../src/core/errors.js';
import type { Feed, FeedOptions, Page, ToPark } from '../../src/core/contracts/feed.js';
import type { ErrorLogger } from '../../src/core/contracts/logger.js';
import { newMessage, type Message, type NewMessageOptions } from '../../src/core/contracts/message.js';
import type { Messenger } from '../../src/core/relay/messenger.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishOptions,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import type { FeedStore } from '../../src/core/contracts/store.js';
import { failureKind } from '../../src/core/publish/failure-kinds.js';
import { systemClock } from '../../src/core/util/clock.js';
import type { PublishPageOptions } from '../../src/core/publish/types.js';
import { OutageDetector } from '../../src/core/publish/outage-detector.js';
import { Bell, serially, sleep } from '../../src/core/util/async.js';
import { PlainStore } from '../support/plain-store.js';

/** Everything as fast as it goes. */
export const FAST = { interval: 1, retry: { minDelay: 1, maxDelay: 2 } };

export const refusal = (kind: FailureKind, text: string = kind): PublishError => new PublishError(text, { kind });

/** Messages whose text is their payload: `a1` and `a2!` have the key `a`, `-1` has none. */
export function message(text: string, options: NewMessageOptions = {}): Message {
  const key = text.startsWith('-') ? undefined : text.replace(/\d+!?$/, '');
  return newMessage(text, { key, ...options });
}

export const textOf = ({ payload }: Message): string => new TextDecoder().decode(payload);

/** A plain store that holds these. */
export async function plainStore(...texts: readonly string[]): Promise<PlainStore> {
  const store = new PlainStore();
  await put(store, ...texts);
  return store;
}

export async function put(store: PlainStore, ...texts: readonly string[]): Promise<void> {
  await store.transaction((transaction) =>
    store.add(
      transaction,
      texts.map((text) => message(text)),
    ),
  );
}

/** The texts that the store still has to publish. */
export async function unpublished(store: PlainStore): Promise<string[]> {
  return (await store.messages(1_000_000)).map(textOf);
}

export interface RecordingLogger extends ErrorLogger {
  readonly errors: Error[];
  readonly text: () => string;
}

export function recordingLogger(): RecordingLogger {
  const errors: Error[] = [];
  return {
    errors,
    error: (error) => void errors.push(error),
    text: () => errors.map((error) => error.message).join('\n'),
  };
}

/** Acknowledges, or throws what it is to fail with. */
export type Answer = (text: string, options?: PublishOptions) => unknown;

export interface Scripted {
  /** Every message that was sent, in order, failed ones too. */
  readonly sent: string[];
  readonly acknowledged: string[];
}

/** A publisher without a batch form. */
export function scripted(answer: Answer = () => undefined): Publisher & Scripted {
  const sent: string[] = [];
  const acknowledged: string[] = [];
  return {
    sent,
    acknowledged,
    async publish(each, options) {
      const text = textOf(each);
      sent.push(text);
      await answer(text, options);
      acknowledged.push(text);
    },
  };
}

/** A publisher with a batch form that answers for each message by itself. */
export function scriptedBatch(
  answer: Answer = () => undefined,
  { batchKeepsKeyOrder = false } = {},
): BatchPublisher & Scripted & { readonly calls: string[][] } {
  const calls: string[][] = [];
  const one = scripted(answer);
  const resultOf = async (each: Message, options?: PublishOptions): Promise<PublishResult> => {
    try {
      await one.publish(each, options);
      return ACKNOWLEDGED;
    } catch (error) {
      return { acknowledged: false, error: toError(error) };
    }
  };
  return {
    ...one,
    calls,
    batchKeepsKeyOrder,
    async publishBatch(messages, options) {
      calls.push(messages.map(textOf));
      const results: PublishResult[] = [];
      const failed = new Map<string, PublishResult>();
      for (const each of messages) {
        const earlier = batchKeepsKeyOrder && each.key !== undefined ? failed.get(each.key) : undefined;
        const result: PublishResult =
          earlier === undefined
            ? await resultOf(each, options)
            : { acknowledged: false, error: refusal('retryable', 'behind') };
        if (!result.acknowledged && each.key !== undefined) failed.set(each.key, result);
        results.push(result);
      }
      return results;
    },
  };
}

/** What `publishPage` needs: it never pauses, and what fails is tried again at once, by default. */
export function pageOptions(publisher: BatchPublisher, more: Partial<PublishPageOptions> = {}): PublishPageOptions {
  const never = new AbortController().signal;
  const pass = { probe: false, opened: 0 };
  return {
    publisher,
    progress: new Bell(),
    timeout: 10_000,
    batchBytes: Infinity,
    policyOf: () => ({ minDelay: 0, maxDelay: 0, maxAttempts: 20, onExhausted: 'dead-letter', maxParked: Infinity }),
    kindOf: failureKind,
    lost: never,
    stop: never,
    circuit: { signature: undefined, tryEnter: () => pass, enter: () => Promise.resolve(pass), leave: () => undefined },
    outageDetector: new OutageDetector(),
    probes: 0,
    clock: systemClock,
    onFailure: () => undefined,
    ...more,
  };
}

/** Starts a relay. `stop` aborts it and waits for its end. */
export function started(messenger: Messenger): { readonly ended: Promise<void>; readonly stop: () => Promise<void> } {
  const controller = new AbortController();
  const ended = messenger.start({ signal: controller.signal });
  // Whoever awaits it sees the rejection; until then it is not an unhandled one.
  ended.catch(() => undefined);
  return {
    ended,
    stop: async () => {
      controller.abort();
      await ended;
    },
  };
}

/** A small seeded random number generator (mulberry32): numbers from 0 to 1. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

interface Parked extends ToPark {
  readonly due: number;
}

/**
 * A store with a feed, a lease and a side table, in arrays: what the contract of `Feed` says and no
 * more. It fails a relay that settles out of order or that calls it as a plain store.
 */
export class ListFeedStore implements FeedStore {
  readonly log: Message[] = [];
  /** Messages that failed, by their place in the log. */
  readonly parked = new Map<number, Parked>();
  cursor = 0;
  epoch = 0;
  opened = 0;
  #lease: AbortController | undefined;
  /** Called before each change and after it; what it throws, the call rejects with. */
  fault: (call: 'open' | 'read' | 'retries' | 'settle' | 'settled') => unknown = () => undefined;
  /** Called with each feed that is opened. The relay gets what it returns. */
  changeFeed: (feed: Feed) => Feed = (feed) => feed;

  get held(): boolean {
    return this.#lease !== undefined;
  }

  get dead(): string[] {
    return [...this.parked.values()].filter(({ dead }) => dead).map((each) => textOf(each.message));
  }

  /** Everything was acknowledged or is a dead letter. */
  get isDone(): boolean {
    return this.cursor === this.log.length && [...this.parked.values()].every(({ dead }) => dead);
  }

  add(...texts: readonly string[]): void {
    this.log.push(...texts.map((text) => message(text)));
  }

  /** Takes the lease away from whoever holds it. */
  revoke(): void {
    this.epoch += 1;
    const lease = this.#lease;
    this.#lease = undefined;
    lease?.abort(new MessengerError('LEASE_LOST', 'the lease was taken away'));
  }

  messages(): Promise<never> {
    return Promise.reject(new Error('messages() of a store with feeds was called'));
  }

  published(): Promise<never> {
    return Promise.reject(new Error('published() of a store with feeds was called'));
  }

  deletePublishedByExpiration(): Promise<void> {
    return Promise.resolve();
  }

  async openFeed({ pageSize }: FeedOptions): Promise<Feed | null> {
    await this.fault('open');
    if (this.#lease !== undefined) return null;
    this.opened += 1;
    const lease = (this.#lease = new AbortController());
    const epoch = (this.epoch += 1);
    const release = () => {
      if (this.epoch === epoch) this.#lease = undefined;
    };
    return this.changeFeed(this.#feed(pageSize, lease.signal, epoch, release));
  }

  #feed(pageSize: number, lost: AbortSignal, epoch: number, release: () => void): Feed {
    /** The side table as this feed knows it: a settlement counts from the moment of the call. */
    const parked = new Map([...this.parked].map(([place, each]) => [place, { ...each, outstanding: false }]));
    const ends = new WeakMap<Page, number>();
    let readTo = this.cursor;
    const fenced = () => {
      if (this.epoch !== epoch) throw new MessengerError('LEASE_LOST', 'another relay has taken over');
    };
    const inTurn = serially();
    const placeOf = (each: Message) => this.log.indexOf(each);
    return {
      lost,
      partitions: [0],
      unbalanced: false,
      rebalance: () => {
        readTo = this.cursor;
        return Promise.resolve();
      },
      waiting: (topic) => [...parked.values()].filter((each) => !each.dead && each.message.topic === topic).length,
      idle: (ms, { signal } = {}) => sleep(ms, signal, lost),
      isParked: (key) => [...parked.values()].some((each) => !each.dead && each.message.key === key),
      read: async () => {
        await this.fault('read');
        fenced();
        const page: Page = { messages: this.log.slice(readTo, readTo + pageSize) };
        readTo += page.messages.length;
        ends.set(page, readTo);
        return page;
      },
      retries: async () => {
        await this.fault('retries');
        fenced();
        const blocked = new Set<string>();
        const due = [...parked]
          .filter(([, { dead }]) => !dead)
          .sort(([a], [b]) => a - b)
          .map(([, each]) => each)
          .filter((each) => {
            const { key } = each.message;
            if (each.blocked !== true && !each.outstanding && each.due <= Date.now() && !blocked.has(key ?? ''))
              return true;
            if (key !== undefined) blocked.add(key);
            return false;
          })
          .slice(0, pageSize);
        return { messages: due.map((each) => each.message), attempts: due.map(({ attempts }) => attempts) };
      },
      settle: (page, toPark) => {
        const changes = (table: Map<number, Parked>) => {
          for (const each of page.messages) table.delete(placeOf(each));
          for (const each of toPark) {
            table.set(placeOf(each.message), { ...each, due: Date.now() + (each.retryIn ?? 0) });
          }
        };
        changes(parked);
        return inTurn(async () => {
          await this.fault('settle');
          fenced();
          const end = ends.get(page);
          if (end !== undefined && end - page.messages.length !== this.cursor) throw new Error('settled out of order');
          if (end !== undefined) this.cursor = end;
          changes(this.parked);
          await this.fault('settled');
        });
      },
      close: () => {
        release();
        return Promise.resolve();
      },
    };
  }
}

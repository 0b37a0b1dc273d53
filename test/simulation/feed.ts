/** The relay's side of the model store: what a feed keeps in the process's memory, and its calls to the server. */
import { MessengerError } from '../../src/core/errors.js';
import type { Feed, FeedOptions, Page, ToPark } from '../../src/core/contracts/feed.js';
import type { Message } from '../../src/core/contracts/message.js';
import type { FeedStore } from '../../src/core/contracts/store.js';
import { READING, type Process } from './clock.js';
import type { Network } from './network.js';
import type { Oracle, Session } from './oracle.js';
import type { Claimed, Destination, Row, Server, Share } from './server.js';

/** The world that a feed works in. */
export interface Surroundings {
  readonly server: Server;
  readonly network: Network;
  readonly oracle: Oracle;
  readonly process: Process;
  readonly to: Destination;
  /** Page size times pipeline depth. */
  readonly inFlight: number;
}

interface PageRecord {
  readonly rows: readonly Row[];
  /** For a page of the log: to where each partition was read with it. */
  readonly ends: ReadonlyMap<number, number> | undefined;
  settled: boolean;
}

/** From asking for the lease to the request an engine may look at the clock a few times. Milliseconds. */
const SENDING = 10 * READING;

const EMPTY = new Uint8Array([0]);
const AT = new Date(0);

/** A store as one process sees it. */
export function modelStore(world: Surroundings): FeedStore {
  const unsupported = () => Promise.reject(new Error('a store with feeds was called as a plain one'));
  return {
    messages: unsupported,
    published: unsupported,
    deletePublishedByExpiration: () => Promise.resolve(),
    openFeed: (options) => ModelFeed.open(world, options),
  };
}

class ModelFeed implements Feed {
  readonly #world: Surroundings;
  readonly #pageSize: number;
  readonly #hold: { relay: string; owner: string; epochs: Map<number, number>; session: Session };
  readonly #lost = new AbortController();
  /** What is parked, as far as this feed knows: by seq. */
  readonly #parked = new Map<number, Row>();
  /** What waits for the answer to its call. */
  readonly #outstanding = new Set<number>();
  readonly #pages = new WeakMap<Page, PageRecord>();
  /** Pages that were given out and not settled. */
  readonly #unsettled = new Set<PageRecord>();
  readonly #rows = new WeakMap<Message, Row>();
  /** To where each partition was read, and to where settled. */
  readonly #positions = new Map<number, number>();
  readonly #cursors = new Map<number, number>();
  #share: Share;
  #last: Promise<unknown> = Promise.resolve();
  #renewedAt = 0;
  /** When this process stops publishing, by its own clock, and when it ought to. */
  #deadline = 0;
  #ought = 0;
  #stopTimers: (() => void)[] = [];

  private constructor(world: Surroundings, { pageSize }: FeedOptions, relay: string, owner: string, claimed: Claimed) {
    this.#world = world;
    this.#pageSize = pageSize;
    this.#hold = { relay, owner, epochs: new Map(), session: newSession(world, owner) };
    this.#share = claimed;
    this.#got(claimed);
  }

  static async open(world: Surroundings, options: FeedOptions): Promise<Feed | null> {
    const { server, network, to, process } = world;
    const { relay = '', signal } = options;
    const owner = server.flaw === 'claim without an epoch' ? relay : server.newOwner(relay);
    const sentAt = process.clock.now();
    const waiting = (partitions: readonly number[]) =>
      network.call(process, 'parked keys', () => server.waiting(to, partitions), signal);
    const early =
      server.flaw === 'parked keys read with the claim' ? await waiting([...to.partitions.keys()]) : undefined;
    const claimed = await network.call(process, 'claim', () => server.claim(to, relay, owner), signal);
    if (claimed.epochs.size === 0) return null;
    const feed = new ModelFeed(world, options, relay, owner, claimed);
    feed.#renewed(sentAt);
    feed.#beat();
    try {
      // In a call after the claim: the old owner's last settlement is in it.
      feed.#know(early ?? (await waiting(feed.partitions)));
      return feed;
    } catch (error) {
      await feed.close();
      throw error;
    }
  }

  get lost(): AbortSignal {
    const { server, process } = this.#world;
    if (server.flaw !== 'lost by timer alone' && process.clock.now() >= this.#deadline) {
      this.#lose('the lease was not renewed in time');
    }
    return this.#lost.signal;
  }

  get partitions(): readonly number[] {
    return [...this.#hold.epochs.keys()];
  }

  get unbalanced(): boolean {
    const held = this.#hold.epochs.size;
    const { quota, free } = this.#share;
    return held > quota || (held < quota && free > 0);
  }

  isParked(key: string): boolean {
    return [...this.#parked.values()].some((each) => each.key === key);
  }

  waiting(topic: string | undefined): number {
    return [...this.#parked.values()].filter((each) => each.topic === topic).length;
  }

  async rebalance({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { server, network, to, process } = this.#world;
    const claimed = await this.#change(
      'rebalance',
      () => {
        const given = server.rebalance(to, this.#hold);
        // What was given out until then is read again, and counts no more.
        for (const page of this.#unsettled) page.settled = true;
        this.#unsettled.clear();
        return given;
      },
      signal,
    );
    // In its order: the server gives away the last ones.
    for (const partition of [...this.#hold.epochs.keys()].slice(claimed.quota)) {
      for (const map of [this.#hold.epochs, this.#positions, this.#cursors]) map.delete(partition);
      for (const row of this.#parked.values()) if (row.partition === partition) this.#parked.delete(row.seq);
    }
    // What was read ahead is read again: its page was never settled.
    for (const [partition, cursor] of this.#cursors) this.#positions.set(partition, cursor);
    this.#got(claimed);
    const taken = [...claimed.epochs.keys()];
    if (taken.length === 0 || server.flaw === 'parked keys not read when taking over') return;
    try {
      this.#know(await network.call(process, 'parked keys', () => server.waiting(to, taken), signal));
    } catch (error) {
      this.#lose('the keys of what was taken over could not be read', error);
      throw error;
    }
  }

  async read({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<Page> {
    const { server, network, to, process } = this.#world;
    const { page, ends } = await network.call(
      process,
      'read',
      () => {
        const rows = server.read(to, this.#positions, this.#pageSize);
        const end = rows.at(-1)?.seq ?? 0;
        // One that was taken over may be ahead of the others.
        const ends = new Map([...this.#positions].map(([partition, position]) => [partition, Math.max(position, end)]));
        return { page: this.#page(rows, ends), ends };
      },
      signal,
    );
    for (const [partition, end] of ends) this.#positions.set(partition, end);
    return page;
  }

  async retries({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<Page> {
    if (this.#parked.size === 0) return { messages: [], attempts: [] };
    const { server, network, to, process } = this.#world;
    return network.call(
      process,
      'retries',
      () => {
        const due = server.due(to, this.partitions, this.#pageSize, this.#outstanding);
        return this.#page(
          due.map(({ row }) => row),
          undefined,
          due.map(({ attempts }) => attempts),
        );
      },
      signal,
    );
  }

  async settle(page: Page, toPark: readonly ToPark[]): Promise<void> {
    const { server, oracle, to } = this.#world;
    const record = this.#pages.get(page) ?? this.#late(page);
    if (record === undefined || record.settled) {
      oracle.fail('the contract of feeds', 'a page is settled that was not read, or for the second time');
      return;
    }
    const rowOf = (message: Message): Row => {
      const row = this.#rows.get(message);
      if (row === undefined) throw new Error(`message ${message.id} was parked, and is of no page`);
      return row;
    };
    const entries = toPark.map((each) => [rowOf(each.message), each] as const);
    const kept = new Set(entries.map(([row]) => row));
    const published = record.rows.filter((row) => !kept.has(row));
    for (const [row, { dead }] of entries) if (!dead) this.#parked.set(row.seq, row);
    for (const { seq } of record.rows) this.#outstanding.delete(seq);
    for (const [{ seq }, { outstanding }] of entries) if (outstanding === true) this.#outstanding.add(seq);
    const gone = [...published, ...entries.flatMap(([row, { dead }]) => (dead ? [row] : []))];
    const forget = () => {
      for (const { seq } of gone) this.#parked.delete(seq);
    };
    const { ends } = record;
    const share = await this.#change(
      `settle ${published.map(({ seq }) => seq).join()} but ${entries.map(([{ seq }, each]) => `${seq}${each.dead ? '+' : ''}`).join()}`,
      () => {
        const told = server.settle(to, this.#hold, {
          published,
          toPark: entries,
          ends: ends && (server.flaw === 'cursor past what is settled' ? new Map(this.#positions) : ends),
        });
        record.settled = true;
        this.#unsettled.delete(record);
        return told;
      },
    );
    this.#share = share;
    forget();
    for (const [partition, end] of ends ?? []) this.#cursors.set(partition, end);
  }

  idle(ms: number, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { to, process } = this.#world;
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        to.sleeping.delete(wake);
        for (const each of [signal, this.#lost.signal]) each?.removeEventListener('abort', done);
        resolve();
      };
      const wake = () => {
        process.give('network', done);
      };
      const cancel = process.clock.setTimeout(done, ms);
      if (signal?.aborted === true || this.lost.aborted) {
        done();
        return;
      }
      to.sleeping.add(wake);
      for (const each of [signal, this.#lost.signal]) each?.addEventListener('abort', done);
    });
  }

  async close(): Promise<void> {
    for (const stop of this.#stopTimers) stop();
    await this.#last.catch(() => undefined);
    if (this.lost.aborted) return;
    this.#lose('the lease was released');
    const { server, network, to, process } = this.#world;
    await network
      .call(process, 'release', () => {
        server.release(to, this.#hold);
      })
      .catch(() => undefined);
  }

  /** Changes go one after another, and one that fails ends the feed: whether it was made is unknown. */
  #change<T>(name: string, effect: () => T, signal?: AbortSignal): Promise<T> {
    const { network, process } = this.#world;
    const change = this.#last.then(async () => {
      this.lost.throwIfAborted();
      const sentAt = process.clock.now();
      const result = await network.call(process, name, effect, signal);
      this.#renewed(sentAt);
      return result;
    });
    this.#last = change.catch((error: unknown) => {
      this.#lose('a change failed', error);
    });
    return change;
  }

  #renewed(sentAt: number): void {
    const { server, process } = this.#world;
    const late = server.flaw === 'late deadline';
    this.#renewedAt = process.clock.now();
    this.#ought = sentAt + server.lease * 0.8;
    this.#deadline = late ? this.#renewedAt + server.lease : this.#ought;
  }

  /** Renews the lease when nothing else has for a while, and finds out when it is too late. */
  #beat(): void {
    const { server, to, process } = this.#world;
    const again = () => {
      const now = process.clock.now();
      if (now >= this.#deadline) this.#lose('the lease was not renewed in time');
      if (this.#lost.signal.aborted) return;
      if (now - this.#renewedAt >= server.lease / 3) {
        this.#change('renew', () => server.renew(to, this.#hold)).then(
          (share) => {
            this.#share = share;
          },
          () => undefined,
        );
      }
      this.#stopTimers = [process.clock.setTimeout(again, server.lease / 6)];
    };
    this.#stopTimers = [process.clock.setTimeout(again, server.lease / 6)];
  }

  #lose(why: string, cause?: unknown): void {
    for (const stop of this.#stopTimers) stop();
    if (!this.#lost.signal.aborted) this.#lost.abort(new MessengerError('LEASE_LOST', why, { cause }));
  }

  #got({ epochs, cursors, quota, free }: Claimed): void {
    this.#share = { quota, free };
    for (const [partition, epoch] of epochs) this.#hold.epochs.set(partition, epoch);
    for (const [partition, cursor] of cursors) {
      this.#cursors.set(partition, cursor);
      this.#positions.set(partition, cursor);
    }
  }

  #know(parked: readonly { readonly row: Row }[]): void {
    for (const { row } of parked) {
      if (this.#hold.epochs.has(row.partition)) this.#parked.set(row.seq, row);
    }
  }

  /** A page of what was outstanding. */
  #late({ messages }: Page): PageRecord | undefined {
    const rows = messages.flatMap((message) => this.#rows.get(message) ?? []);
    if (rows.length === 0 || rows.length < messages.length) return undefined;
    return rows.every(({ seq }) => this.#outstanding.has(seq)) ? { rows, ends: undefined, settled: false } : undefined;
  }

  /** A page as the server gave it: made there and then, so that it is known what was this relay's at that time. */
  #page(rows: readonly Row[], ends: PageRecord['ends'], attempts?: readonly number[]): Page {
    const { server, oracle, to } = this.#world;
    const record: PageRecord = { rows, ends, settled: false };
    const messages = rows.map((row): Message => {
      const { key, topic } = row;
      const message = { id: String(row.seq), metadata: {}, payload: EMPTY, published: false, at: AT, key, topic };
      this.#rows.set(message, row);
      const isLost = () => this.#lost.signal.aborted || this.#world.process.clock.now() >= this.#ought + SENDING;
      const handed = { row, to, session: this.#hold.session, page: record, isLost };
      oracle.gave(to, message, handed, server.owns(to, row.partition, this.#hold));
      return message;
    });
    const page: Page = attempts ? { messages, attempts } : { messages };
    this.#pages.set(page, record);
    if (messages.length > 0) this.#unsettled.add(record);
    return page;
  }
}

function newSession({ inFlight }: Surroundings, name: string): Session {
  return {
    name,
    bound: inFlight,
    unsettled: new Set(),
    acknowledged: new Set(),
    calling: new Map(),
    outstanding: new Set(),
  };
}

import { MessengerError } from '../../core/errors.js';
import type { CloseOptions, Feed, FeedOptions, IdleOptions, Page, ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import { systemClock } from '../../core/util/clock.js';
import { isAlone, isLater, type Destination, type Holder, type Postponed } from './destination.js';
import type { Kept } from './kept.js';
import type { MemoryLog } from './log.js';

/**
 * A relay's feed for a destination in memory. It holds the whole destination until the feed is closed or loses the
 * destination.
 */
export class MemoryFeed implements Feed, Holder {
  readonly partitions: readonly number[] = [0];
  readonly unbalanced = false;
  /** The name of the relay. */
  readonly relay: string | undefined;
  readonly #lost = new AbortController();
  readonly #log: MemoryLog;
  readonly #destination: Destination;
  readonly #pageSize: number;
  readonly #places = new WeakMap<Message, Kept>();
  /** The unsettled pages from the log, each with the postponed messages to park when the page is settled. */
  readonly #unsettled = new Map<Page, Postponed[]>();
  #readTo = 0;

  constructor(log: MemoryLog, destination: Destination, { pageSize, relay }: FeedOptions) {
    this.#log = log;
    this.#destination = destination;
    this.#pageSize = pageSize;
    this.relay = relay;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  isParked(key: string): boolean {
    return this.#destination.isParked(key);
  }

  waiting(topic: string | undefined): number {
    return this.#destination.waiting(topic);
  }

  async rebalance(): Promise<void> {
    this.#unsettled.clear();
    this.#readTo = 0;
    return Promise.resolve();
  }

  async read(): Promise<Page> {
    await this.#assertHeld();
    const found: Kept[] = [];
    const postponed: Postponed[] = [];
    for (const kept of this.#log.behind(this.#readTo)) {
      if (found.length === this.#pageSize) break;
      this.#readTo = kept.seq;
      if (!this.#destination.isPending(kept)) continue;
      const isDelayed = isLater(kept.message, this.#log.now());
      if (isDelayed || this.#isHeld(kept.message.key, postponed)) postponed.push({ kept, isDelayed });
      else found.push(kept);
    }
    const page = this.#pageOf(found);
    if (found.length > 0) this.#unsettled.set(page, postponed);
    else this.#postpone(postponed);
    return page;
  }

  async retries(): Promise<Page> {
    await this.#assertHeld();
    const due = this.#destination.due(this.#pageSize, { now: this.#log.now(), feed: this });
    return { ...this.#pageOf(due.map(({ kept }) => kept)), attempts: due.map(({ attempts }) => attempts) };
  }

  async settle(page: Page, toPark: readonly ToPark[]): Promise<void> {
    // Settle at once, because the relay must know which keys are parked, even for pages that it has already read.
    if (!this.lost.aborted) this.#settle(page, toPark);
    await this.#assertHeld();
  }

  async idle(ms: number, { signal }: IdleOptions = {}): Promise<void> {
    await this.#log.changed.wait(systemClock, ms, signal, this.lost);
  }

  async close({ stays = false }: CloseOptions = {}): Promise<void> {
    if (stays) this.#destination.standsBy(this.relay, this.#log.now());
    this.lose('this feed is closed');
    return Promise.resolve();
  }

  /** Releases the destination. The next feed reads the unsettled messages again. */
  lose(why: string): void {
    if (this.lost.aborted) return;
    this.#destination.released(this.#log.now());
    this.#lost.abort(new MessengerError('LEASE_LOST', why));
  }

  /**
   * Whether a postponed message holds back later messages with this key. The postponed message is parked when the page
   * that it was read with is settled.
   */
  #isHeld(key: string | undefined, postponed: readonly Postponed[]): boolean {
    if (key === undefined) return false;
    const read = [...this.#unsettled.values(), postponed].flat();
    return read.some((each) => each.kept.message.key === key && !isAlone(each));
  }

  /**
   * Parks postponed messages when the last unsettled page is settled, so that no earlier message with the same key is
   * published after them. If all pages are settled, parks them at once.
   */
  #postpone(postponed: readonly Postponed[]): void {
    const last = [...this.#unsettled.values()].at(-1);
    if (last !== undefined) last.push(...postponed);
    else for (const each of postponed) this.#destination.postpone(each, this.#log.now());
  }

  #settle(page: Page, toPark: readonly ToPark[]): void {
    const now = this.#log.now();
    for (const each of this.#unsettled.get(page) ?? []) this.#destination.postpone(each, now);
    this.#unsettled.delete(page);
    const parked = new Map(toPark.map((each) => [each.message, each]));
    for (const message of page.messages) {
      const kept = this.#places.get(message);
      if (kept === undefined) continue;
      const entry = parked.get(message);
      if (entry === undefined) this.#destination.published(kept);
      else this.#destination.park(kept, entry, { now, feed: this });
    }
  }

  #pageOf(found: readonly Kept[]): Page {
    for (const kept of found) this.#places.set(kept.message, kept);
    return { messages: found.map(({ message }) => message) };
  }

  #assertHeld(): Promise<void> {
    return this.lost.aborted ? Promise.reject(this.lost.reason as Error) : Promise.resolve();
  }
}

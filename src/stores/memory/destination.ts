import type { ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import { textOf } from '../../core/util/error-text.js';
import type { Kept } from './kept.js';

/**
 * For how many milliseconds after its last call a relay counts as standing by. A relay that stands by calls every
 * second.
 */
const STANDS_BY = 3_000;

/** A relay's feed, as the relay's destination sees it. */
export interface Holder {
  /** The name of the relay. */
  readonly relay: string | undefined;
  /** Ends the hold. */
  lose(why: string): void;
}

/** A parked message. Times are in milliseconds since 1970. */
export interface Parked {
  readonly kept: Kept;
  readonly fate: 'retry' | 'blocked' | 'dead';
  readonly attempts: number;
  readonly error: string | null;
  readonly reason: 'failed' | 'behind' | 'delayed' | 'blocked' | 'dead' | 'requeued';
  readonly firstFailedAt: number | null;
  readonly lastFailedAt: number | null;
  /** When the message will be tried, once it is the first parked message of its key. */
  readonly nextAt: number;
  readonly givenUpAt: number | null;
  /** Whether the message waits outside the order of its key. */
  readonly alone: boolean;
  /** The feed whose call for this message has no answer yet. */
  readonly outstandingAt: Holder | undefined;
}

/** The options of a destination. Times are in milliseconds since 1970. */
interface DestinationOptions {
  readonly topics?: readonly string[] | undefined;
  /** The number of the last message before those that the destination publishes. */
  readonly after?: number;
  readonly createdAt?: number;
  readonly forgetAfter?: number | undefined;
}

/** One destination, with the messages that it publishes. It knows which of them are published or parked. */
export class Destination {
  readonly name: string;
  readonly topics: readonly string[] | null;
  readonly createdAt: number | null;
  forgetAfter: number | null;
  forgottenAt: number | null = null;
  /** The feed that holds the destination now. */
  holder: Holder | undefined;
  /** The parked messages, by number. */
  readonly #parked = new Map<number, Parked>();
  /** How many parked messages of each key wait in the order of the key. */
  readonly #waitingKeys = new Map<string, number>();
  readonly #after: number;
  /** The numbers of the messages that were published or parked. */
  readonly #settled = new Set<number>();
  #workedAt: number | null = null;
  /** When each relay last stood by, by the name of the relay. */
  readonly #standby = new Map<string, number>();

  constructor(name: string, { topics, after = 0, createdAt, forgetAfter }: DestinationOptions) {
    this.name = name;
    this.topics = topics === undefined ? null : [...topics];
    this.createdAt = createdAt ?? null;
    this.forgetAfter = forgetAfter ?? null;
    this.#after = after;
  }

  /**
   * Whether the destination should publish a message. It should if the message is addressed to it. It also should if
   * the message has no address and the destination publishes its topic.
   */
  isFor({ seq, message: { destination, topic } }: Kept): boolean {
    if (seq <= this.#after) return false;
    if (destination !== undefined) return destination === this.name;
    return this.topics === null || (topic !== undefined && this.topics.includes(topic));
  }

  isPending(kept: Kept): boolean {
    return this.isFor(kept) && !this.#settled.has(kept.seq);
  }

  hasPublished({ seq }: Kept): boolean {
    return this.#settled.has(seq) && !this.#parked.has(seq);
  }

  hasParked({ seq }: Kept): boolean {
    return this.#parked.has(seq);
  }

  /** Returns the parked messages, in the order of the log. */
  get parked(): Parked[] {
    return [...this.#parked.values()].sort((a, b) => a.kept.seq - b.kept.seq);
  }

  /** Records that a message is published, or is deleted for ever. Its key goes on. */
  published({ seq }: Kept): void {
    this.#settled.add(seq);
    this.#unpark(seq);
  }

  forget({ seq }: Kept): void {
    this.#settled.delete(seq);
    this.#unpark(seq);
  }

  /** Makes relays try a dead letter or a blocked message again. */
  requeue(parked: Parked, now: number): void {
    this.#put({ ...parked, fate: 'retry', attempts: 0, reason: 'requeued', nextAt: now, givenUpAt: null });
  }

  /** Parks a message of the log, or parks a parked message again. */
  park(kept: Kept, toPark: ToPark, { now, feed }: { readonly now: number; readonly feed: Holder }): void {
    const { attempts, error, retryIn, dead, blocked = false, outstanding = false } = toPark;
    const known = this.#parked.get(kept.seq);
    // A parked message that was not tried does not change.
    if (known !== undefined && error === undefined && retryIn === undefined && !dead && !blocked) {
      this.#put({ ...known, outstandingAt: undefined });
      return;
    }
    const isGivenUp = dead || blocked;
    this.#put({
      kept,
      attempts,
      fate: dead ? 'dead' : blocked ? 'blocked' : 'retry',
      error: error === undefined ? (known?.error ?? null) : textOf(error),
      reason: dead ? 'dead' : blocked ? 'blocked' : error ? 'failed' : 'behind',
      firstFailedAt: known?.firstFailedAt ?? (error ? now : null),
      lastFailedAt: error ? now : (known?.lastFailedAt ?? null),
      nextAt: now + (retryIn ?? 0),
      givenUpAt: isGivenUp ? now : null,
      alone: known?.alone === true && kept.message.key !== undefined,
      outstandingAt: outstanding ? feed : undefined,
    });
  }

  /** Parks a message whose time has not come, or a message behind one that holds its key. */
  postpone({ kept, isDelayed }: Postponed, now: number): void {
    this.#put({
      kept,
      fate: 'retry',
      attempts: 0,
      error: null,
      reason: isDelayed ? 'delayed' : 'behind',
      firstFailedAt: null,
      lastFailedAt: null,
      nextAt: isDelayed ? (kept.message.deliverAt?.getTime() ?? now) : now,
      givenUpAt: null,
      alone: isAlone({ kept, isDelayed }),
      outstandingAt: undefined,
    });
  }

  /** Whether later messages of a key must wait. */
  isParked(key: string): boolean {
    return this.#waitingKeys.has(key);
  }

  /**
   * Returns how many messages of a topic wait to be tried again. Messages that only wait for their time do not count.
   */
  waiting(topic: string | undefined): number {
    const isCounted = (each: Parked) => each.kept.message.topic === topic && each.fate !== 'dead' && !each.alone;
    return [...this.#parked.values()].filter((each) => isCounted(each) && each.reason !== 'delayed').length;
  }

  /**
   * Returns the due parked messages, and those that wait behind them, in order. The first message of a key decides
   * whether the key is due.
   */
  due(limit: number, { now, feed }: { readonly now: number; readonly feed: Holder }): Parked[] {
    const firsts = new Set(this.firsts());
    const waiting = new Set<string>();
    const due: Parked[] = [];
    for (const parked of this.parked) {
      const { kept, fate, nextAt, alone, outstandingAt } = parked;
      const { key } = kept.message;
      if (fate === 'dead') continue;
      const isTime = !isLater(kept.message, now) && (!firsts.has(parked) || nextAt <= now);
      const isReady = fate === 'retry' && outstandingAt !== feed && isTime;
      if (isReady && (alone || key === undefined || !waiting.has(key))) due.push(parked);
      else if (key !== undefined && !alone) waiting.add(key);
      if (due.length === limit) break;
    }
    return due;
  }

  /**
   * For callers without a feed: returns the pending messages that can be published now, and the due parked messages.
   */
  ready(log: readonly Kept[], now: number, limit: number): Message[] {
    const held = new Set<string>();
    const ready: Message[] = [];
    for (const { seq, message } of log.filter((kept) => this.isFor(kept) && !this.hasPublished(kept))) {
      const { key, holdKey } = message;
      const isDelayed = isLater(message, now);
      const { fate, nextAt, alone } = this.#parked.get(seq) ?? {
        fate: 'retry',
        nextAt: 0,
        alone: isDelayed && holdKey !== true,
      };
      if (fate === 'dead') continue;
      const isFree = alone || key === undefined || !held.has(key);
      if (fate === 'retry' && nextAt <= now && !isDelayed && isFree) ready.push(message);
      else if (key !== undefined && !alone) held.add(key);
      if (ready.length === limit) break;
    }
    return ready;
  }

  /**
   * Returns the parked messages that wait behind no other message. These are messages without a key, messages outside
   * the order of their key, and the first message of each key.
   */
  firsts(): Parked[] {
    const keys = new Set<string>();
    return this.parked.filter(({ fate, alone, kept: { message } }) => {
      if (fate === 'dead') return false;
      if (alone || message.key === undefined) return true;
      const isFirst = !keys.has(message.key);
      keys.add(message.key);
      return isFirst;
    });
  }

  /** Records that a relay stands by, or that it will open a feed again at once. */
  standsBy(relay: string | undefined, now: number): void {
    if (relay !== undefined) this.#standby.set(relay, now);
  }

  /** Returns how many relays hold the destination or stand by. */
  relays(now: number): number {
    const others = [...this.#standby].filter(([relay, at]) => relay !== this.holder?.relay && at > now - STANDS_BY);
    return others.length + (this.holder === undefined ? 0 : 1);
  }

  /** Whether the destination has been without a relay for longer than `forgetAfter`. */
  isAbandoned(now: number): boolean {
    if (this.forgetAfter === null || this.forgottenAt !== null || this.relays(now) > 0) return false;
    return now > Math.max(this.createdAt ?? 0, this.#workedAt ?? 0) + this.forgetAfter;
  }

  /** Returns the time until which a relay worked on the destination. */
  workedAt(now: number): number | null {
    return this.holder === undefined ? this.#workedAt : now;
  }

  released(now: number): void {
    this.holder = undefined;
    this.#workedAt = now;
  }

  #put(parked: Parked): void {
    this.#unpark(parked.kept.seq);
    this.#settled.add(parked.kept.seq);
    this.#parked.set(parked.kept.seq, parked);
    this.#count(parked, 1);
  }

  #unpark(seq: number): void {
    const parked = this.#parked.get(seq);
    if (parked === undefined) return;
    this.#parked.delete(seq);
    this.#count(parked, -1);
  }

  #count({ kept, fate, alone }: Parked, by: number): void {
    const { key } = kept.message;
    if (key === undefined || fate === 'dead' || alone) return;
    const left = (this.#waitingKeys.get(key) ?? 0) + by;
    if (left === 0) this.#waitingKeys.delete(key);
    else this.#waitingKeys.set(key, left);
  }
}

/**
 * A message that a feed has read but does not hand out. Either its time has not come, or it waits behind a message that
 * holds its key.
 */
export interface Postponed {
  readonly kept: Kept;
  readonly isDelayed: boolean;
}

/** Whether a postponed message waits outside the order of its key. */
export function isAlone({ kept: { message }, isDelayed }: Postponed): boolean {
  return isDelayed && (message.key === undefined || message.holdKey !== true);
}

/** Whether the time of a message has not come. */
export function isLater({ deliverAt }: Message, now: number): boolean {
  return deliverAt !== undefined && deliverAt.getTime() > now;
}

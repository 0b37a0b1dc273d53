import type { ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import { textOf } from '../../core/util/error-text.js';
import type { Kept } from './kept.js';

/**
 * How many milliseconds after its last call a relay still counts as standing by. A relay on standby calls every second.
 */
const STANDS_BY = 3_000;

/** The part of a relay's feed that the destination uses. */
export interface Holder {
  /** The name of the relay. */
  readonly relay: string | undefined;
  /** Takes the destination away from the feed. */
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
  /** When the message will be tried, provided that it is the first parked message with its key by then. */
  readonly nextAt: number;
  readonly givenUpAt: number | null;
  /** Whether the message waits independently of other messages with its key. */
  readonly alone: boolean;
  /** The feed whose call for this message has no answer yet. */
  readonly outstandingAt: Holder | undefined;
}

/** The options of a destination. Times are in milliseconds since 1970. */
interface DestinationOptions {
  readonly topics?: readonly string[] | undefined;
  /** The sequence number after which the destination starts. */
  readonly after?: number;
  readonly createdAt?: number;
  readonly forgetAfter?: number | undefined;
}

/** A destination. It records which of its messages are published or parked. */
export class Destination {
  readonly name: string;
  readonly topics: readonly string[] | null;
  readonly createdAt: number | null;
  forgetAfter: number | null;
  forgottenAt: number | null = null;
  /** The feed that currently holds the destination. */
  holder: Holder | undefined;
  /** The parked messages, keyed by sequence number. */
  readonly #parked = new Map<number, Parked>();
  /** How many parked messages hold back later messages with the same key, keyed by that key. */
  readonly #waitingKeys = new Map<string, number>();
  readonly #after: number;
  /** The sequence numbers of the messages that were published or parked. */
  readonly #settled = new Set<number>();
  #workedAt: number | null = null;
  /** The time at which each relay last stood by, keyed by the relay's name. */
  readonly #standby = new Map<string, number>();

  constructor(name: string, { topics, after = 0, createdAt, forgetAfter }: DestinationOptions) {
    this.name = name;
    this.topics = topics === undefined ? null : [...topics];
    this.createdAt = createdAt ?? null;
    this.forgetAfter = forgetAfter ?? null;
    this.#after = after;
  }

  /**
   * Whether the destination should publish a message: either the message is addressed to this destination, or it is not
   * addressed to any destination and this destination publishes its topic.
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

  /**
   * Records that a message was published, or was permanently deleted. Later messages with its key no longer wait for
   * it.
   */
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

  /** Parks a message from the log, or parks a parked message again. */
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

  /** Parks a message that is waiting for its `deliverAt`, or behind such a message with the same key. */
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

  /** Whether later messages with a key must wait. */
  isParked(key: string): boolean {
    return this.#waitingKeys.has(key);
  }

  /**
   * Returns how many of a topic's messages are waiting for another attempt. Messages that are only waiting for their
   * `deliverAt` do not count.
   */
  waiting(topic: string | undefined): number {
    const isCounted = (each: Parked) => each.kept.message.topic === topic && each.fate !== 'dead' && !each.alone;
    return [...this.#parked.values()].filter((each) => isCounted(each) && each.reason !== 'delayed').length;
  }

  /**
   * Returns the due parked messages, and those that wait behind them, in order. The first parked message with a key
   * decides whether the messages with that key are due.
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

  /** For callers without a feed: returns the messages that can be published now, pending or parked. */
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
   * Returns the parked messages that do not wait behind another message. These are messages without a key, messages
   * that wait independently of their key, and the first parked message with each key.
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

  /** Returns when a relay last served the destination. */
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
 * A message that a feed has read but does not return yet. It is waiting for its `deliverAt`, or behind such a message
 * with the same key.
 */
export interface Postponed {
  readonly kept: Kept;
  readonly isDelayed: boolean;
}

/** Whether a postponed message waits independently of other messages with its key. */
export function isAlone({ kept: { message }, isDelayed }: Postponed): boolean {
  return isDelayed && (message.key === undefined || message.holdKey !== true);
}

/** Whether a message is not due yet, because its `deliverAt` is in the future. */
export function isLater({ deliverAt }: Message, now: number): boolean {
  return deliverAt !== undefined && deliverAt.getTime() > now;
}

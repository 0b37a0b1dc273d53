import type { ToPark } from '../../core/contracts/feed.js';
import type { Message } from '../../core/contracts/message.js';
import { textOf } from '../../core/util/error-text.js';
import type { Kept } from './kept.js';

/** How long a relay that stands by is counted after it last asked: it asks every second. Milliseconds. */
const STANDS_BY = 3_000;

/** A relay's feed, as its destination knows it. */
export interface Holder {
  /** What the relay is known by. */
  readonly relay: string | undefined;
  /** Ends the hold. */
  lose(why: string): void;
}

/** A message that is parked. Times in milliseconds since 1970. */
export interface Parked {
  readonly kept: Kept;
  readonly fate: 'retry' | 'blocked' | 'dead';
  readonly attempts: number;
  readonly error: string | null;
  readonly reason: 'failed' | 'behind' | 'delayed' | 'blocked' | 'dead' | 'requeued';
  readonly firstFailedAt: number | null;
  readonly lastFailedAt: number | null;
  /** When it is tried, once it is the first of its key. */
  readonly nextAt: number;
  readonly givenUpAt: number | null;
  /** Whether it waits outside of its key's order. */
  readonly alone: boolean;
  /** The feed whose call for it has not been answered. */
  readonly outstandingAt: Holder | undefined;
}

/** What a destination is made of. Times in milliseconds since 1970. */
interface DestinationOptions {
  readonly topics?: readonly string[] | undefined;
  /** The number of the last message that is not for it. */
  readonly after?: number;
  readonly createdAt?: number;
  readonly forgetAfter?: number | undefined;
}

/** What one destination publishes, and how far it has come. */
export class Destination {
  readonly name: string;
  readonly topics: readonly string[] | null;
  readonly createdAt: number | null;
  forgetAfter: number | null;
  forgottenAt: number | null = null;
  /** Who relays it now. */
  holder: Holder | undefined;
  /** By number. */
  readonly #parked = new Map<number, Parked>();
  /** How many messages of a key wait in its order. */
  readonly #waitingKeys = new Map<string, number>();
  readonly #after: number;
  /** Numbers of messages that were published or parked. */
  readonly #settled = new Set<number>();
  #workedAt: number | null = null;
  /** By the name of a relay, when it last stood by. */
  readonly #standby = new Map<string, number>();

  constructor(name: string, { topics, after = 0, createdAt, forgetAfter }: DestinationOptions) {
    this.name = name;
    this.topics = topics === undefined ? null : [...topics];
    this.createdAt = createdAt ?? null;
    this.forgetAfter = forgetAfter ?? null;
    this.#after = after;
  }

  /** Whether it is to publish a message: what is for it alone, and of what is for nobody, its topics. */
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

  /** The parked messages, in order. */
  get parked(): Parked[] {
    return [...this.#parked.values()].sort((a, b) => a.kept.seq - b.kept.seq);
  }

  /** From here on a message is published, or deleted for ever: its key goes on. */
  published({ seq }: Kept): void {
    this.#settled.add(seq);
    this.#unpark(seq);
  }

  forget({ seq }: Kept): void {
    this.#settled.delete(seq);
    this.#unpark(seq);
  }

  /** Has a message that was given up tried again. */
  requeue(parked: Parked, now: number): void {
    this.#put({ ...parked, fate: 'retry', attempts: 0, reason: 'requeued', nextAt: now, givenUpAt: null });
  }

  /** Parks a message of the log, or one that was parked already. */
  park(kept: Kept, toPark: ToPark, { now, feed }: { readonly now: number; readonly feed: Holder }): void {
    const { attempts, error, retryIn, dead, blocked = false, outstanding = false } = toPark;
    const known = this.#parked.get(kept.seq);
    // One that was not tried stays as it was.
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

  /** Parks a message whose time has not come, or that waits behind one that holds its key. */
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

  /** Whether later messages of a key wait. */
  isParked(key: string): boolean {
    return this.#waitingKeys.has(key);
  }

  /** How many messages of a topic wait to be tried again, without those that only wait for their time. */
  waiting(topic: string | undefined): number {
    const isCounted = (each: Parked) => each.kept.message.topic === topic && each.fate !== 'dead' && !each.alone;
    return [...this.#parked.values()].filter((each) => isCounted(each) && each.reason !== 'delayed').length;
  }

  /** What is due, and what waits behind it, in order. Of a key, its first message decides. */
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

  /** For whoever lists messages and has no feed: what is pending and can be published now, and what is due. */
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

  /** The parked messages that wait for no other: those without a key, out of their key's order, or the first of it. */
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

  /** Notes that a relay stands by, or comes back at once. */
  standsBy(relay: string | undefined, now: number): void {
    if (relay !== undefined) this.#standby.set(relay, now);
  }

  /** How many relays hold it or stand by. */
  relays(now: number): number {
    const others = [...this.#standby].filter(([relay, at]) => relay !== this.holder?.relay && at > now - STANDS_BY);
    return others.length + (this.holder === undefined ? 0 : 1);
  }

  /** Whether no relay worked on it for longer than it may be without one. */
  isAbandoned(now: number): boolean {
    if (this.forgetAfter === null || this.forgottenAt !== null || this.relays(now) > 0) return false;
    return now > Math.max(this.createdAt ?? 0, this.#workedAt ?? 0) + this.forgetAfter;
  }

  /** Until when a relay worked on it. */
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

/** A message that is not handed out when it is read: its time has not come, or it waits behind one that holds its key. */
export interface Postponed {
  readonly kept: Kept;
  readonly isDelayed: boolean;
}

/** Whether it waits outside of its key's order. */
export function isAlone({ kept: { message }, isDelayed }: Postponed): boolean {
  return isDelayed && (message.key === undefined || message.holdKey !== true);
}

/** Whether the time of a message has not come. */
export function isLater({ deliverAt }: Message, now: number): boolean {
  return deliverAt !== undefined && deliverAt.getTime() > now;
}

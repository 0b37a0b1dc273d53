/**
 * The model of a database server: a log, and for each destination cursors, leases and a side table.
 * Every method is one transaction, and every change of a relay is fenced by owner and epoch, as
 * sections 5.2 and 5.3 of the design say; a `Flaw` leaves one of these rules out.
 */
import { MessengerError } from '../../src/core/errors.js';
import type { ToPark } from '../../src/core/contracts/feed.js';
import type { Oracle, Session } from './oracle.js';

/** A stored message. */
export interface Row {
  readonly seq: number;
  readonly key: string | undefined;
  readonly topic: string;
  readonly partition: number;
  readonly committedAt: number;
}

/** A rule that a broken store leaves out. */
export type Flaw =
  /** A settlement is not fenced: a relay that was paused past its lease overwrites its successor's. */
  | 'unfenced settle'
  /** The parked keys are as they were when the claim began to wait for its lock: before the old owner's last settlement. */
  | 'parked keys read with the claim'
  /** The parked keys of partitions that are taken over later are not read. */
  | 'parked keys not read when taking over'
  /** A claim leaves the epoch as it was, and owners are known by their relay. */
  | 'claim without an epoch'
  /** The cursor moves to where was read, not to where was settled. */
  | 'cursor past what is settled'
  /** A message is due although an earlier one of its key is not. */
  | 'retries out of order'
  /** Whether the lease is lost is found out by a timer alone. */
  | 'lost by timer alone'
  /** The local deadline counts from the answer to a renewal, and is as late as the server's. */
  | 'late deadline';

export interface PartitionState {
  cursor: number;
  owner: string | undefined;
  epoch: number;
  expiresAt: number;
}

export interface ParkedRow {
  readonly row: Row;
  readonly attempts: number;
  readonly due: number;
  readonly dead: boolean;
  readonly blocked: boolean;
}

/** What a relay holds: its name for this claim, and the epoch of each partition. */
export interface Hold {
  readonly relay: string;
  readonly owner: string;
  readonly epochs: ReadonlyMap<number, number>;
  readonly session: Session;
}

/** What a relay is told with each answer. */
export interface Share {
  /** How many partitions are its even share. */
  readonly quota: number;
  /** How many have no owner, or one whose lease has expired. */
  readonly free: number;
}

export interface Claimed extends Share {
  readonly epochs: Map<number, number>;
  readonly cursors: Map<number, number>;
}

export interface Settlement {
  readonly published: readonly Row[];
  readonly toPark: readonly (readonly [Row, ToPark])[];
  /** For a page of the log: to where each partition is settled with it. */
  readonly ends: ReadonlyMap<number, number> | undefined;
}

export class Destination {
  readonly name: string;
  readonly topics: readonly string[] | undefined;
  readonly partitions: PartitionState[];
  readonly parked = new Map<number, ParkedRow>();
  readonly relays = new Map<string, number>();
  /** Called when something was committed. */
  readonly sleeping = new Set<() => void>();

  constructor(name: string, partitions: number, topics?: readonly string[]) {
    this.name = name;
    this.topics = topics;
    this.partitions = Array.from({ length: partitions }, () => ({
      cursor: 0,
      owner: undefined,
      epoch: 0,
      expiresAt: 0,
    }));
  }

  wants({ topic }: Row): boolean {
    return this.topics?.includes(topic) ?? true;
  }
}

export class Server {
  readonly log: Row[] = [];
  readonly lease: number;
  readonly flaw: Flaw | undefined;
  /** The server's clock goes before the world's by that much. */
  offset = 0;
  #claims = 0;
  readonly #now: () => number;
  readonly #oracle: Oracle;

  constructor(options: { lease: number; flaw: Flaw | undefined; now: () => number; oracle: Oracle }) {
    this.lease = options.lease;
    this.flaw = options.flaw;
    this.#now = options.now;
    this.#oracle = options.oracle;
  }

  /** What a claim is known by: never the same twice. */
  newOwner(relay: string): string {
    return `${relay}#${++this.#claims}`;
  }

  get now(): number {
    return this.#now() + this.offset;
  }

  /** Registers the relay, and gives it what is free of its even share. */
  claim(to: Destination, relay: string, owner: string): Claimed {
    const { quota } = this.#join(to, relay);
    return this.#take(to, relay, owner, quota);
  }

  renew(to: Destination, hold: Hold): Share {
    this.#fence(to, hold);
    const { quota } = this.#join(to, hold.relay);
    return { quota, free: this.#free(to).length };
  }

  /** Gives away what is more than its share, and takes what it lacks and is free. */
  rebalance(to: Destination, hold: Hold): Claimed {
    this.#fence(to, hold);
    const { quota } = this.#join(to, hold.relay);
    const surplus = [...hold.epochs.keys()].slice(quota);
    // Before anything changes hands, everything that was acknowledged is settled.
    this.#oracle.released(hold.session);
    for (const partition of surplus) to.partitions[partition]!.owner = undefined;
    return this.#take(to, hold.relay, hold.owner, quota - Math.min(quota, hold.epochs.size));
  }

  release(to: Destination, hold: Hold): void {
    this.#fence(to, hold);
    to.relays.delete(hold.relay);
    for (const partition of hold.epochs.keys()) to.partitions[partition]!.owner = undefined;
  }

  /** Keys and topics of what is parked and not dead. */
  waiting(to: Destination, partitions: readonly number[]): ParkedRow[] {
    return [...to.parked.values()].filter(({ row, dead }) => !dead && partitions.includes(row.partition));
  }

  read(to: Destination, positions: ReadonlyMap<number, number>, limit: number): Row[] {
    const rows: Row[] = [];
    for (let place = Math.min(Infinity, ...positions.values()); place < this.log.length; place++) {
      const row = this.log[place]!;
      if (row.seq > (positions.get(row.partition) ?? Infinity) && to.wants(row)) rows.push(row);
      if (rows.length === limit) break;
    }
    return rows;
  }

  /** What is due, and what waits behind it, in order per key. */
  due(to: Destination, partitions: readonly number[], limit: number, outstanding: ReadonlySet<number>): ParkedRow[] {
    const held = new Set<string>();
    return this.waiting(to, partitions)
      .sort((a, b) => a.row.seq - b.row.seq)
      .filter(({ row: { key, seq }, due, blocked }) => {
        if (!blocked && !outstanding.has(seq) && due <= this.now && (key === undefined || !held.has(key))) return true;
        if (key !== undefined && this.flaw !== 'retries out of order') held.add(key);
        return false;
      })
      .slice(0, limit);
  }

  settle(to: Destination, hold: Hold, settlement: Settlement): Share {
    if (this.flaw !== 'unfenced settle') this.#fence(to, hold);
    const { published, toPark, ends } = settlement;
    for (const { seq } of published) to.parked.delete(seq);
    for (const [row, { attempts, retryIn, dead, blocked = false }] of toPark) {
      // What goes on waiting behind another keeps its time.
      const due = retryIn === undefined ? to.parked.get(row.seq)?.due : this.now + retryIn;
      to.parked.set(row.seq, { row, attempts, due: due ?? 0, dead, blocked });
    }
    const moved = [...(ends ?? [])].map(([partition, end]) => {
      const state = to.partitions[partition]!;
      const from = state.cursor;
      state.cursor = end;
      return { partition, from, to: end };
    });
    this.#oracle.settled(to, hold.session, settlement, moved);
    if (this.flaw === 'unfenced settle') return { quota: hold.epochs.size, free: 0 };
    const { quota } = this.#join(to, hold.relay);
    return { quota, free: this.#free(to).length };
  }

  /** Takes a partition away from whoever holds it, as an operator or a crash of the server does. */
  revoke(to: Destination, partition: number): void {
    const state = to.partitions[partition]!;
    state.epoch += 1;
    state.owner = undefined;
  }

  owns(to: Destination, partition: number, { owner, epochs }: Hold): boolean {
    const state = to.partitions[partition]!;
    return state.owner === owner && state.epoch === epochs.get(partition);
  }

  #fence(to: Destination, hold: Hold): void {
    for (const partition of hold.epochs.keys()) {
      if (!this.owns(to, partition, hold)) {
        throw new MessengerError('LEASE_LOST', `partition ${partition} has another owner than ${hold.owner}`);
      }
    }
    for (const partition of hold.epochs.keys()) to.partitions[partition]!.expiresAt = this.now + this.lease;
  }

  #join(to: Destination, relay: string): { quota: number } {
    const { now } = this;
    to.relays.set(relay, now + this.lease);
    for (const [name, expiresAt] of to.relays) if (expiresAt <= now) to.relays.delete(name);
    const relays = [...to.relays.keys()].sort();
    const { length } = to.partitions;
    const extra = relays.indexOf(relay) < length % relays.length ? 1 : 0;
    return { quota: Math.floor(length / relays.length) + extra };
  }

  #free(to: Destination): number[] {
    return [...to.partitions.keys()].filter((each) => {
      const { owner, expiresAt } = to.partitions[each]!;
      return owner === undefined || expiresAt <= this.now;
    });
  }

  #take(to: Destination, relay: string, owner: string, count: number): Claimed {
    const { quota } = this.#join(to, relay);
    const free = this.#free(to);
    const taken = free.slice(0, count);
    for (const partition of taken) {
      const state = to.partitions[partition]!;
      state.owner = owner;
      if (this.flaw !== 'claim without an epoch') state.epoch += 1;
      state.expiresAt = this.now + this.lease;
    }
    return {
      quota,
      free: free.length - taken.length,
      epochs: new Map(taken.map((partition) => [partition, to.partitions[partition]!.epoch])),
      cursors: new Map(taken.map((partition) => [partition, to.partitions[partition]!.cursor])),
    };
  }
}

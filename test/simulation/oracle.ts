/** What was promised, asked of everything that happens in a world. */
import type { Message } from '../../src/core/contracts/message.js';
import { failureKind } from '../../src/core/publish/failure-kinds.js';
import type { PublishResult } from '../../src/core/contracts/publisher.js';
import type { Destination, Row, Settlement } from './server.js';

export type PromiseName =
  | 'nothing lost'
  | 'nothing phantom'
  | 'at least once'
  | 'order per key'
  | 'no stall'
  | 'bounded duplicates'
  | 'nothing sent past the lease'
  | 'no attempt burnt'
  | 'a dead letter has a reason'
  | 'stops when told'
  | 'the contract of feeds'
  | 'no errors of its own';

export interface Violation {
  readonly promise: PromiseName;
  readonly what: string;
}

/** One feed of a relay, from its claim to its end. */
export interface Session {
  readonly name: string;
  /** How many messages may be in flight: page size times pipeline depth. */
  readonly bound: number;
  /** Accepted by the broker, in a page that is not settled: what a crash would repeat. */
  readonly unsettled: Set<number>;
  /** What the engine was told to be acknowledged. */
  readonly acknowledged: Set<number>;
  /** What the engine waits for the answer to, and how often. */
  readonly calling: Map<number, number>;
  /** What was parked while its call is waited for, and not settled since. */
  readonly outstanding: Set<number>;
}

/** A message as a feed gave it out. */
export interface Handed {
  readonly row: Row;
  readonly session: Session;
  readonly to: Destination;
  readonly page: { settled: boolean };
  /** Whether the relay has to know by now that it may not publish any more. */
  readonly isLost: () => boolean;
}

/** What a destination's broker and store have seen of each message. */
interface Seen {
  readonly accepted: Map<number, number>;
  readonly settled: Set<number>;
  /** Was a dead letter, at some time: its key goes on without it. */
  readonly dead: Set<number>;
  /** Calls of the publisher that neither acknowledged it nor failed with the whole connection. */
  readonly failures: Map<number, number>;
  readonly refused: Set<number>;
}

export class Oracle {
  violation: Violation | undefined;
  /** The server's log. */
  log: readonly Row[] = [];
  acceptances = 0;
  duplicates = 0;
  /** The most that a crash would have repeated at any moment, as a part of what is allowed. */
  fullest = 0;
  /** The longest that a message took which nothing was wrong with. */
  slowest = 0;
  readonly #seen = new Map<Destination, Seen>();
  readonly #byKey = new Map<string, Row[]>();
  readonly #handed = new WeakMap<Message, Handed>();
  readonly #limits: { readonly attempts: number; readonly latency: number };
  readonly #now: () => number;

  constructor(limits: { attempts: number; latency: number }, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  fail(promise: PromiseName, what: string): void {
    this.violation ??= { promise, what };
  }

  committed(row: Row): void {
    if (row.key === undefined) return;
    const rows = this.#byKey.get(row.key);
    if (rows) rows.push(row);
    else this.#byKey.set(row.key, [row]);
  }

  /** A feed gives a message out. `owned`: its partition is this session's at this moment. */
  gave(to: Destination, message: Message, handed: Handed, owned: boolean): void {
    this.#handed.set(message, handed);
    if (owned && this.#of(to).settled.has(handed.row.seq)) {
      this.fail('bounded duplicates', `${nameOf(handed.row)} was settled as published, and is given out again`);
    }
  }

  /** A request to the broker leaves the engine. Returns what is in it. */
  begun(to: Destination, messages: readonly Message[], oneOfEachKey: boolean): Handed[] {
    const keys = new Set<string>();
    return messages.flatMap((message) => {
      const handed = this.#handed.get(message);
      if (handed === undefined) {
        this.fail('nothing phantom', `message ${message.id} is sent, which no feed gave out`);
        return [];
      }
      const { row, session } = handed;
      if (handed.isLost()) {
        this.fail('nothing sent past the lease', `${nameOf(row)} by ${session.name}`);
      }
      if (session.acknowledged.has(row.seq)) {
        this.fail(
          'bounded duplicates',
          `${session.name} sends ${nameOf(row)} again, of which it has the acknowledgement`,
        );
      }
      if (row.key !== undefined && oneOfEachKey) {
        if (keys.has(row.key)) this.fail('the contract of feeds', `two messages of key ${row.key} in one call`);
        keys.add(row.key);
      }
      return [handed];
    });
  }

  accepted(to: Destination, { row, session, page }: Handed, calm: boolean): void {
    const { accepted, dead } = this.#of(to);
    const before = accepted.get(row.seq) ?? 0;
    accepted.set(row.seq, before + 1);
    if (!page.settled || session.outstanding.has(row.seq)) session.unsettled.add(row.seq);
    this.acceptances += 1;
    this.fullest = Math.max(this.fullest, session.unsettled.size / session.bound);
    if (session.unsettled.size > session.bound) {
      this.fail(
        'bounded duplicates',
        `${session.name} has ${session.unsettled.size} in flight, more than ${session.bound}`,
      );
    }
    if (before > 0) {
      this.duplicates += 1;
      return;
    }
    if (!to.wants(row)) this.fail('nothing phantom', `${nameOf(row)} is not for ${to.name}`);
    const overtaken = this.#keyOf(row).find(({ seq }) => seq > row.seq && accepted.has(seq));
    if (overtaken !== undefined && !dead.has(row.seq)) {
      this.fail('order per key', `${nameOf(row)} is first acknowledged after ${nameOf(overtaken)} at ${to.name}`);
    }
    const latency = this.#now() - row.committedAt;
    if (calm) this.slowest = Math.max(this.slowest, latency);
    if (calm && latency > this.#limits.latency) {
      this.fail(
        'no stall',
        `${nameOf(row)} took ${Math.round(latency)} ms at ${to.name}, where nothing was wrong with it`,
      );
    }
  }

  /** The broker refuses a message for good: it has a reason to be a dead letter. */
  refused(to: Destination, { row }: Handed): void {
    this.#of(to).refused.add(row.seq);
  }

  /** The engine waits for an answer from now on, until the function that is returned is called. */
  waits(messages: readonly Message[]): () => void {
    const waiting = messages.flatMap((message) => this.#handed.get(message) ?? []);
    const count = (by: number) => {
      for (const { row, session } of waiting) {
        const calls = (session.calling.get(row.seq) ?? 0) + by;
        if (calls > 1) this.fail('bounded duplicates', `${session.name} sends ${nameOf(row)} while it is being sent`);
        if (calls === 0) session.calling.delete(row.seq);
        else session.calling.set(row.seq, calls);
      }
    };
    count(1);
    let isOver = false;
    return () => {
      if (!isOver) count(-1);
      isOver = true;
    };
  }

  /** The engine calls its publisher: if nothing else is heard of a message, that was a failure of it. */
  called(messages: readonly Message[]): void {
    for (const message of messages) this.#count(message, 1);
  }

  /** The engine is answered: what is acknowledged, or failed with the whole connection, is no failure of the message. */
  told(messages: readonly Message[], results: readonly PublishResult[]): void {
    results.forEach((result, i) => {
      const message = messages[i]!;
      const handed = this.#handed.get(message);
      if (result.acknowledged) handed?.session.acknowledged.add(handed.row.seq);
      if (result.acknowledged || failureKind(result.error) === 'connection') this.#count(message, -1);
    });
  }

  settled(
    to: Destination,
    session: Session,
    { published, toPark }: Settlement,
    moved: readonly { readonly partition: number; readonly from: number; readonly to: number }[],
  ): void {
    const { accepted, settled, dead, failures, refused } = this.#of(to);
    for (const row of published) {
      settled.add(row.seq);
      session.unsettled.delete(row.seq);
      session.outstanding.delete(row.seq);
      if (!accepted.has(row.seq)) this.fail('at least once', `${nameOf(row)} is completed, and was not acknowledged`);
    }
    for (const [row, entry] of toPark) {
      // Settled as far as the cursor goes, and still in flight.
      if (entry.outstanding === true) session.outstanding.add(row.seq);
      else {
        session.outstanding.delete(row.seq);
        session.unsettled.delete(row.seq);
      }
      if (entry.dead) dead.add(row.seq);
      const allowed = failures.get(row.seq) ?? 0;
      if (entry.attempts > allowed) {
        this.fail(
          'no attempt burnt',
          `${nameOf(row)} has ${entry.attempts} attempts, and failed ${allowed} times by itself`,
        );
      }
      if ((entry.dead || entry.blocked === true) && !refused.has(row.seq) && entry.attempts < this.#limits.attempts) {
        this.fail('a dead letter has a reason', `${nameOf(row)} is given up after ${entry.attempts} attempts`);
      }
    }
    for (const { partition, from, to: end } of moved) {
      for (const row of this.log.slice(from, end)) {
        if (row.partition !== partition || !to.wants(row)) continue;
        if (!settled.has(row.seq) && !to.parked.has(row.seq)) {
          this.fail('nothing lost', `the cursor of partition ${partition} of ${to.name} passes ${nameOf(row)}`);
        }
      }
    }
  }

  /** Partitions are handed over: nothing that the engine knows to be acknowledged may be repeated for it. */
  released({ name, unsettled, acknowledged, calling }: Session): void {
    for (const seq of unsettled) {
      if (acknowledged.has(seq)) {
        this.fail('bounded duplicates', `${name} gives partitions away, and has not settled message ${seq}`);
      }
    }
    for (const seq of calling.keys()) {
      this.fail('order per key', `${name} gives partitions away, and waits for the answer to message ${seq}`);
    }
    unsettled.clear();
  }

  /** What is not done yet, of all that is for a destination. */
  left(to: Destination): Row[] {
    const blocked = new Set(
      [...to.parked.values()].filter((parked) => parked.blocked).map(({ row }) => row.key ?? row.seq),
    );
    return this.log.filter((row) => {
      const parked = to.parked.get(row.seq);
      if (parked) return !parked.dead && !blocked.has(row.key ?? row.seq);
      return to.wants(row) && row.seq > to.partitions[row.partition]!.cursor;
    });
  }

  /** Asked at the end, of the world as it is then, whatever was asked on the way. */
  concluded(to: Destination): void {
    const { accepted } = this.#of(to);
    const blocked = new Map<string | undefined, number>();
    for (const { row, blocked: is } of to.parked.values()) if (is) blocked.set(row.key, row.seq);
    for (const row of this.log) {
      if (!to.wants(row) || accepted.has(row.seq)) continue;
      const parked = to.parked.get(row.seq);
      const waits = row.key !== undefined && (blocked.get(row.key) ?? Infinity) < row.seq;
      if (!parked || !(parked.dead || parked.blocked || waits)) {
        this.fail('nothing lost', `${nameOf(row)} is neither acknowledged at ${to.name} nor a dead letter`);
      }
    }
    for (const seq of accepted.keys()) {
      if (this.log[seq - 1]?.seq !== seq) this.fail('nothing phantom', `message ${seq} was never committed`);
    }
  }

  #count(message: Message, by: number): void {
    const handed = this.#handed.get(message);
    if (handed === undefined) return;
    const { failures } = this.#of(handed.to);
    failures.set(handed.row.seq, (failures.get(handed.row.seq) ?? 0) + by);
  }

  #keyOf({ key }: Row): readonly Row[] {
    return key === undefined ? [] : this.#byKey.get(key)!;
  }

  #of(to: Destination): Seen {
    const known = this.#seen.get(to);
    if (known) return known;
    const seen: Seen = {
      accepted: new Map(),
      settled: new Set(),
      dead: new Set(),
      failures: new Map(),
      refused: new Set(),
    };
    this.#seen.set(to, seen);
    return seen;
  }
}

export const nameOf = ({ seq, key }: Row): string => `message ${seq}${key === undefined ? '' : ` of key ${key}`}`;

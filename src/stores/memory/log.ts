import { MessengerError } from '../../core/errors.js';
import type { Message } from '../../core/contracts/message.js';
import { DEFAULT_DESTINATION } from '../../core/contracts/feed.js';
import { Bell } from '../../core/util/async.js';
import { Destination } from './destination.js';
import type { Kept } from './kept.js';

/** The committed messages, in commit order, and the destinations that publish them. */
export class MemoryLog {
  /** Rings when there may be something to publish. */
  readonly changed = new Bell();
  readonly destinations = new Map<string, Destination>();
  /** The store's clock, in milliseconds since 1970. */
  readonly now: () => number;
  #kept: Kept[] = [];
  /** The sequence number of the newest message. */
  #last = 0;

  constructor(now: () => number) {
    this.now = now;
  }

  get kept(): readonly Kept[] {
    return this.#kept;
  }

  append(messages: readonly Message[]): void {
    const storedAt = this.now();
    for (const { destination } of messages) if (destination !== undefined) this.declare(destination);
    for (const message of messages) this.#kept.push({ seq: (this.#last += 1), message, storedAt });
    this.changed.ring();
  }

  /** Finds a relay's destination, or adds it. A new destination starts at the beginning of the log. */
  destination(name: string): Destination {
    return this.destinations.get(name) ?? this.add(new Destination(name, {}));
  }

  /** @throws MessengerError `UNKNOWN_DESTINATION` if the message is addressed to a destination that was forgotten. */
  assertTaken({ destination }: Message): void {
    const forgottenAt = destination === undefined ? null : (this.destinations.get(destination)?.forgottenAt ?? null);
    if (forgottenAt === null) return;
    throw new MessengerError(
      'UNKNOWN_DESTINATION',
      `destination ${JSON.stringify(destination)} was forgotten: remove it, with { discard: true }, and add it again`,
    );
  }

  /**
   * Forgets the destinations that have been without a relay for longer than their `forgetAfter`.
   * @returns the names of the forgotten destinations.
   */
  forgetAbandoned(): string[] {
    const now = this.now();
    const abandoned = [...this.destinations.values()].filter((each) => each.isAbandoned(now));
    for (const destination of abandoned) destination.forgottenAt = now;
    return abandoned.map(({ name }) => name);
  }

  /**
   * Adds a destination if it does not exist. A destination added here publishes only messages that are addressed to it,
   * except `default`, which publishes all topics from the beginning of the log.
   */
  declare(name: string): void {
    if (this.destinations.has(name)) return;
    const own = name === DEFAULT_DESTINATION ? {} : { topics: [], after: this.#last };
    this.add(new Destination(name, { ...own, createdAt: this.now() }));
  }

  add(destination: Destination): Destination {
    this.destinations.set(destination.name, destination);
    return destination;
  }

  /** Returns the sequence number after which a new destination starts. */
  before(from: 'beginning' | 'end' | Date): number {
    if (from === 'beginning') return 0;
    const first = from === 'end' ? undefined : this.#kept.find(({ storedAt }) => storedAt >= from.getTime());
    return first === undefined ? this.#last : first.seq - 1;
  }

  /** Returns the messages with a sequence number greater than `seq`. */
  *behind(seq: number): Generator<Kept, void> {
    let [low, high] = [0, this.#kept.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#kept[middle] as Kept).seq > seq) high = middle;
      else low = middle + 1;
    }
    for (let place = low; place < this.#kept.length; place++) yield this.#kept[place] as Kept;
  }

  /**
   * Whether at least one destination should publish the message, and all such destinations have published it. A
   * forgotten destination counts as having published it.
   */
  isPublished(kept: Kept): boolean {
    const own = [...this.destinations.values()].filter((destination) => destination.isFor(kept));
    return own.length > 0 && own.every((each) => each.forgottenAt !== null || each.hasPublished(kept));
  }

  /**
   * Whether a message can be deleted. That is so if each destination that should publish the message has published it,
   * or has been forgotten without parking it.
   */
  isDone(kept: Kept): boolean {
    const all = [...this.destinations.values()];
    const waits = (each: Destination) => (each.forgottenAt === null ? !each.hasPublished(kept) : each.hasParked(kept));
    return all.length > 0 && !all.some((each) => each.isFor(kept) && waits(each));
  }

  /**
   * Deletes the messages that were stored at or before the time `until`, if they can be deleted.
   * @returns how many messages were deleted.
   */
  clean(until: number): number {
    const isOld = (kept: Kept) => kept.storedAt <= until && this.isDone(kept);
    const old = this.#kept.filter(isOld);
    const gone = new Set(old);
    this.#kept = this.#kept.filter((kept) => !gone.has(kept));
    for (const destination of this.destinations.values()) for (const kept of old) destination.forget(kept);
    return old.length;
  }
}

import { textOf } from '../../../core/util/error-text.js';
import { MessengerError } from '../../../core/errors.js';
import { backoff } from '../../../core/publish/retry-policy.js';
import { systemClock } from '../../../core/util/clock.js';
import { Bell } from '../../../core/util/async.js';
import { bounded } from '../sql/database.js';
import type { Listen, ListeningSession } from '../drivers/driver.js';
import { Commits } from './commits.js';
import { awaitSlot, RELEASE_SLOTS, slotsIn, takeSlots, type WakeKeys } from '../write/wake-locks.js';

/** How the relays of one store hear of its writers. */
export interface Listening {
  readonly keys: WakeKeys;
  /** Absent where nothing can be heard but this process. */
  readonly listen: Listen | undefined;
  /** Those that sleep, or have slept: to be woken from within this process. */
  readonly wakers: Set<Waker>;
  /** Whether it was found that it cannot work here, whatever is tried. */
  refused: boolean;
}

/** One sleep. Durations in milliseconds. */
export interface Sleep {
  readonly ms: number;
  readonly interval?: number | undefined;
  readonly partitions: readonly number[];
  readonly signals: readonly (AbortSignal | undefined)[];
}

/* In milliseconds, but for the numbers of messages. */

/** A shorter pause is only slept through: falling asleep costs two statements, and writers a notification. */
const SHORT = 10;
/** How long a wait for writers may hold a snapshot. Meanwhile notifications wait as well. */
const SLICE = 50;
/** How long it sleeps while it does not hold all that it needs. */
const UNSURE = 1_000;
const STATEMENT_TIMEOUT = 10_000;
/** How often the session shows that it lives. A relay that does not for three times as long is frozen: the server ends it. */
const HEARTBEAT = 20_000;
/** How long a poll is put off at most where writers tell of their commits. */
const LULL = 2;
/** Of how many messages their writer tells one by one. */
export const FEW = 10;
const RECONNECT = { minDelay: 1_000, maxDelay: 30_000 };

/**
 * The sleep of one relay. All of it is a hint: it may end too early at any time, and whatever fails makes
 * it end when it would have ended without, by its time.
 *
 * It takes the slots of its partitions (see `WakeKeys`), and then ends at once, so that the relay polls
 * once more: what was committed before writers saw the slots taken notifies nobody. Slots that writers
 * hold are waited for; having got one means that they are through. They are held until there is work.
 */
export class Waker {
  readonly #listening: Listening;
  readonly #tell: (error: Error) => void;
  #session: ListeningSession | undefined;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  /** Takes and awaits slots, one after the other. */
  #taking = false;
  #wanted: ReadonlySet<number> = new Set();
  readonly #held = new Set<number>();
  #asleep = false;
  /** Whether the relay was made to poll since it fell asleep. */
  #announced = false;
  /** Counts whenever slots are given back or lost: what was asked before says nothing then. */
  #generation = 0;
  #failures = 0;
  #reconnectAt = 0;
  #closed = false;
  /** Whether it was woken since it last slept. */
  #woken = false;
  readonly #commits = new Commits();
  readonly #bell = new Bell();

  constructor(listening: Listening, tell: (error: Error) => void = () => undefined) {
    this.#listening = listening;
    this.#tell = tell;
  }

  /**
   * Resolves when it is woken, when a signal aborts, or after `ms` milliseconds: after `interval` where it
   * is sure to be woken. Never rejects.
   */
  async idle({ ms, interval = ms, partitions, signals }: Sleep): Promise<void> {
    if (this.#closed) return;
    this.#listening.wakers.add(this);
    if (ms >= SHORT) this.#fallAsleep(partitions);
    await this.#pause(this.#isSure() ? interval : Math.min(ms, this.#patience()), signals);
  }

  /**
   * The pause between a page that was all there was and the next poll, where the writers are in this process: they
   * tell of their commits, so that before the next one there is nothing to be found. Others' messages wait for so
   * long, and polls that find nothing are no longer half of all at a thousand messages a second. Never rejects.
   */
  async lull(): Promise<void> {
    // Too short to be ended by anything else.
    if (this.#commits.areTold) await this.#pause(LULL, []);
  }

  /** Ends the sleep, or the next one. */
  wake(): void {
    this.#woken = true;
    this.#bell.ring();
  }

  /**
   * The same, where a writer of this process has committed: messages with these ids, or it is not said which. Those that
   * have been read already are nothing to poll for, which a fifth of all polls did at a thousand messages a second.
   */
  told(ids?: readonly string[]): void {
    if (!this.#commits.told(ids)) this.wake();
    else if (this.#commits.areExpected) this.#bell.ring();
  }

  /** Messages were read. */
  found(messages: readonly { readonly id: string }[]): void {
    this.#commits.found(messages);
  }

  /** There is work: writers need not notify. */
  awake(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    this.#giveBack();
  }

  /** Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#asleep = false;
    this.#listening.wakers.delete(this);
    this.wake();
    const session = this.#session;
    if (!session) return;
    // The server would give them back with the session, a little later.
    await this.#query(session, RELEASE_SLOTS).catch(() => undefined);
    this.#forget(session);
  }

  async #pause(ms: number, signals: Sleep['signals']): Promise<void> {
    if (!this.#woken && !this.#commits.areExpected) await this.#bell.wait(systemClock, ms, ...signals);
    this.#woken = false;
    // The poll that follows finds them, or they are not for this relay.
    this.#commits.polled();
  }

  #fallAsleep(partitions: readonly number[]): void {
    const { listen, refused, keys } = this.#listening;
    if (!listen || refused) return;
    this.#wanted = new Set(partitions.map((partition) => partition % keys.slots));
    if ([...this.#held].some((slot) => !this.#wanted.has(slot))) this.#giveBack();
    this.#asleep = true;
    if (performance.now() < this.#reconnectAt) return;
    if (this.#taking) return;
    this.#taking = true;
    void this.#take(listen).finally(() => {
      this.#taking = false;
    });
  }

  /** Whether whatever comes will wake it. */
  #isSure(): boolean {
    return this.#asleep && this.#session !== undefined && this.#missing().length === 0;
  }

  /** Milliseconds until the next try at what would make it sure. */
  #patience(): number {
    const { listen, refused } = this.#listening;
    if (!listen || refused || !this.#asleep) return Infinity;
    return Math.max(UNSURE, this.#reconnectAt - performance.now());
  }

  #missing(): number[] {
    return [...this.#wanted].filter((slot) => !this.#held.has(slot));
  }

  /** Takes what it can, and waits for writers as long as there are any. Never rejects. */
  async #take(listen: Listen): Promise<void> {
    let session = this.#session;
    try {
      session ??= await this.#open(listen);
      while (this.#isWanted(session) && this.#missing().length > 0) {
        const generation = this.#generation;
        const states = await this.#query(session, takeSlots(this.#listening.keys, this.#missing()));
        if (generation !== this.#generation) continue;
        this.#failures = 0;
        const held = slotsIn(states, 'held');
        for (const slot of held) this.#held.add(slot);
        const storing = slotsIn(states, 'storing');
        const next = storing[Math.floor(Math.random() * storing.length)];
        const waiting =
          next === undefined ? undefined : this.#query(session, awaitSlot(this.#listening.keys, next, SLICE));
        if (held.length > 0 || !this.#announced) this.wake();
        this.#announced = true;
        if (!waiting) return;
        await waiting;
      }
    } catch (error) {
      this.#lose(session, error);
    }
  }

  #isWanted(session: ListeningSession): boolean {
    return this.#asleep && this.#session === session;
  }

  async #open(listen: Listen): Promise<ListeningSession> {
    const { channel } = this.#listening.keys;
    const opening = listen({
      onNotification: (on, payload) => {
        if (on === channel && this.#wanted.has(Number(payload))) this.wake();
      },
      onEnd: () => {
        this.#lose(this.#session, new Error('the connection has ended'));
      },
    });
    let late = false;
    opening.then(
      (session) => {
        if (late) session.close();
      },
      () => undefined,
    );
    let session: ListeningSession;
    try {
      session = await bounded(opening, { timeout: STATEMENT_TIMEOUT }, 'the pool of the listening connection');
    } catch (error) {
      late = true;
      throw error;
    }
    try {
      await this.#query(
        session,
        `SET statement_timeout = ${String(STATEMENT_TIMEOUT)}; SET idle_session_timeout = ${String(3 * HEARTBEAT)}; LISTEN ${channel}`,
      );
      if (this.#closed) throw new Error('the relay has stopped');
    } catch (error) {
      session.close();
      throw error;
    }
    this.#session = session;
    this.#heartbeat = setInterval(() => {
      this.#query(session, 'SELECT 1').catch((error: unknown) => {
        this.#lose(session, error);
      });
    }, HEARTBEAT);
    this.#heartbeat.unref();
    return session;
  }

  #query(session: ListeningSession, text: string): ReturnType<ListeningSession['query']> {
    return bounded(session.query(text), { timeout: STATEMENT_TIMEOUT }, 'the listening connection');
  }

  #giveBack(): void {
    this.#held.clear();
    this.#announced = false;
    this.#generation += 1;
    const session = this.#session;
    if (!session) return;
    // Also what is being taken just now: a session does one thing after the other.
    this.#query(session, RELEASE_SLOTS).catch((error: unknown) => {
      this.#lose(session, error);
    });
  }

  /** Polls, and tries again later. */
  #lose(session: ListeningSession | undefined, cause: unknown): void {
    if (this.#closed || session !== this.#session) return;
    if (session) this.#forget(session);
    if (cause instanceof MessengerError && cause.code === 'UNSUPPORTED') this.#listening.refused = true;
    this.#failures += 1;
    this.#reconnectAt = performance.now() + backoff(this.#failures, RECONNECT);
    // What was notified meanwhile may be lost.
    this.wake();
    if (this.#failures > 1) return;
    this.#tell(
      new MessengerError(
        'WAKE_FAILED',
        `the relay is not woken by writers, and polls by its interval${this.#listening.refused ? '' : ' until it is'}: ${textOf(cause)}`,
        { cause },
      ),
    );
  }

  #forget(session: ListeningSession): void {
    clearInterval(this.#heartbeat);
    this.#session = undefined;
    this.#held.clear();
    this.#announced = false;
    this.#generation += 1;
    session.close();
  }
}

import { textOf } from '../../../core/util/error-text.js';
import { MessengerError } from '../../../core/errors.js';
import { backoff } from '../../../core/publish/retry-policy.js';
import { systemClock } from '../../../core/util/clock.js';
import { Bell } from '../../../core/util/async.js';
import { bounded } from '../sql/database.js';
import type { Listen, ListeningSession } from '../drivers/driver.js';
import { Commits } from './commits.js';
import { awaitSlot, RELEASE_SLOTS, slotsIn, takeSlots, type WakeKeys } from '../write/wake-locks.js';

/** The means by which a store's relays learn about new messages from its writers. */
export interface Listening {
  readonly keys: WakeKeys;
  /** Absent if only writers in this process can wake the relays. */
  readonly listen: Listen | undefined;
  /** The wakers that are sleeping or have slept. Writers in this process can wake them. */
  readonly wakers: Set<Waker>;
  /** Whether listening has turned out to be impossible here, so that trying again is useless. */
  refused: boolean;
}

/** One sleep. Durations are in milliseconds. */
export interface Sleep {
  readonly ms: number;
  readonly interval?: number | undefined;
  readonly partitions: readonly number[];
  readonly signals: readonly (AbortSignal | undefined)[];
}

/* The following constants are in milliseconds, except for numbers of messages. */

/** The shortest pause during which the relay listens. Listening costs two statements and a notification. */
const SHORT = 10;
/** How long a wait for writers can hold a snapshot. Notifications can be delayed by the same time. */
const SLICE = 50;
/** How long the relay sleeps while it lacks some of the slots that it needs. */
const UNSURE = 1_000;
const STATEMENT_TIMEOUT = 10_000;
/** How often the session sends a query. The server ends a session that has been idle for three times as long. */
const HEARTBEAT = 20_000;
/** The longest time by which a poll is postponed while writers are reporting their commits. */
const LULL = 2;
/** The largest number of messages for which a writer reports the ids. */
export const FEW = 10;
const RECONNECT = { minDelay: 1_000, maxDelay: 30_000 };

/**
 * Controls the sleep of one relay. A wake-up is only a hint. A sleep can end early at any time. After any failure, it
 * ends when its time is over, as if the relay were not listening.
 *
 * A relay that falls asleep takes the slots of its partitions (see `WakeKeys`). Then the sleep ends at once, and the
 * relay polls once more, because writers that committed before the slots were taken did not send a notification. The
 * relay waits for slots that writers hold. When it gets such a slot, these writers have finished. It keeps the slots
 * until there is work.
 */
export class Waker {
  readonly #listening: Listening;
  readonly #tell: (error: Error) => void;
  #session: ListeningSession | undefined;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  /** Whether the relay is taking slots and waiting for them, one after the other. */
  #taking = false;
  #wanted: ReadonlySet<number> = new Set();
  readonly #held = new Set<number>();
  #asleep = false;
  /** Whether the relay has been woken for this additional poll since it fell asleep. */
  #announced = false;
  /** Increases whenever slots are released or lost. It shows that the results of earlier queries are out of date. */
  #generation = 0;
  #failures = 0;
  #reconnectAt = 0;
  #closed = false;
  /** Whether the relay was woken since it last slept. */
  #woken = false;
  readonly #commits = new Commits();
  readonly #bell = new Bell();

  constructor(listening: Listening, tell: (error: Error) => void = () => undefined) {
    this.#listening = listening;
    this.#tell = tell;
  }

  /**
   * Resolves when the relay is woken, when a signal aborts, or after `ms` milliseconds. If every new message is certain
   * to wake the relay, resolves after `interval` instead of `ms`. Never rejects.
   */
  async idle({ ms, interval = ms, partitions, signals }: Sleep): Promise<void> {
    if (this.#closed) return;
    this.#listening.wakers.add(this);
    if (ms >= SHORT) this.#fallAsleep(partitions);
    await this.#pause(this.#isSure() ? interval : Math.min(ms, this.#patience()), signals);
  }

  /**
   * Pauses between a page that reached the end of the log and the next poll, if writers in this process are reporting
   * their commits. A poll before the next report would find none of their messages: without the pause, half of all polls
   * found nothing at a thousand messages a second. Messages from other writers also wait. Never rejects.
   */
  async lull(): Promise<void> {
    // The pause is so short that no signal needs to end it.
    if (this.#commits.areTold) await this.#pause(LULL, []);
  }

  /** Ends the current sleep. If the relay is awake, ends its next sleep. */
  wake(): void {
    this.#woken = true;
    this.#bell.ring();
  }

  /**
   * Wakes the relay when a writer in this process has committed messages, unless the relay has already read them. (They
   * caused a fifth of all polls at a thousand messages a second.) `ids` is undefined if their ids are unknown.
   */
  told(ids?: readonly string[]): void {
    if (!this.#commits.told(ids)) this.wake();
    else if (this.#commits.areExpected) this.#bell.ring();
  }

  /** Call this when messages have been read. */
  found(messages: readonly { readonly id: string }[]): void {
    this.#commits.found(messages);
  }

  /** Call this when there is work. Writers then do not need to send notifications. */
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
    // The server would also release the slots when the session ends, but a little later.
    await this.#query(session, RELEASE_SLOTS).catch(() => undefined);
    this.#forget(session);
  }

  async #pause(ms: number, signals: Sleep['signals']): Promise<void> {
    if (!this.#woken && !this.#commits.areExpected) await this.#bell.wait(systemClock, ms, ...signals);
    this.#woken = false;
    // Either the next poll finds the reported messages, or they are not for this relay.
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

  /** Whether every new message will wake the relay. */
  #isSure(): boolean {
    return this.#asleep && this.#session !== undefined && this.#missing().length === 0;
  }

  /** Returns the milliseconds until the relay should try again to take its missing slots. */
  #patience(): number {
    const { listen, refused } = this.#listening;
    if (!listen || refused || !this.#asleep) return Infinity;
    return Math.max(UNSURE, this.#reconnectAt - performance.now());
  }

  #missing(): number[] {
    return [...this.#wanted].filter((slot) => !this.#held.has(slot));
  }

  /** Takes the free slots, and waits for writers as long as they hold slots. Never rejects. */
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
    // This also releases slots that are just being taken, because a session runs one statement after the other.
    this.#query(session, RELEASE_SLOTS).catch((error: unknown) => {
      this.#lose(session, error);
    });
  }

  /** Makes the relay poll now and reconnect later. */
  #lose(session: ListeningSession | undefined, cause: unknown): void {
    if (this.#closed || session !== this.#session) return;
    if (session) this.#forget(session);
    if (cause instanceof MessengerError && cause.code === 'UNSUPPORTED') this.#listening.refused = true;
    this.#failures += 1;
    this.#reconnectAt = performance.now() + backoff(this.#failures, RECONNECT);
    // Notifications may have been lost meanwhile.
    this.wake();
    if (this.#failures > 1) return;
    this.#tell(
      new MessengerError(
        'WAKE_FAILED',
        `writers cannot wake the relay, which polls at its interval${this.#listening.refused ? '' : ' until they can'}: ${textOf(cause)}`,
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

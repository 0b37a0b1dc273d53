import type { Answer, Pass } from './circuit-breaker.js';
import type { Page } from '../contracts/feed.js';
import type { Message } from '../contracts/message.js';
import { Outcomes } from './outcomes.js';
import { send } from './request.js';
import type { Earlier, Late, PageOutcome, PublishPageOptions } from './types.js';

/** The publication of a page. */
export interface Publication {
  /** @throws only the reason of `lost`. */
  readonly outcome: Promise<PageOutcome>;
  /** Whether a message with this key is neither acknowledged nor parked yet. */
  isBusy(key: string): boolean;
  /** Whether a message with this key was parked. */
  hasParked(key: string): boolean;
}

/** The maximum number of messages in a probe, which finds out whether a broker is back. */
const PROBE_SIZE = 10;

/** The indexes of the messages to send next, and of the messages that have to wait. Both are in order. */
interface Next {
  readonly batch: readonly number[];
  readonly rest: readonly number[];
}

/**
 * Publishes a page. Messages with the same key are sent in order. Each message is tried until it is acknowledged, is
 * parked or becomes a dead letter. During a broker outage, the page waits, and no failed attempts are counted.
 */
export function publishPage(page: Page, options: PublishPageOptions, earlier: Earlier): Publication {
  return new PagePublication(page, options, earlier);
}

class PagePublication implements Publication {
  readonly outcome: Promise<PageOutcome>;
  readonly #page: Page;
  readonly #options: PublishPageOptions;
  readonly #earlier: Earlier;
  readonly #outcomes: Outcomes;
  /**
   * The `stop` signal at the time when the page was begun. After partitions have changed hands, new pages use another
   * signal.
   */
  readonly #stop: AbortSignal;
  /** The indexes of the messages that still have to be sent, in order. */
  #pending: readonly number[];
  /** The keys of the pending messages. This set is created when a key is first looked up. */
  #busy: Set<string | undefined> | undefined;

  constructor(page: Page, options: PublishPageOptions, earlier: Earlier) {
    this.#page = page;
    this.#options = options;
    this.#earlier = earlier;
    this.#outcomes = new Outcomes(page, options);
    this.#stop = options.stop;
    this.#pending = page.messages.map((_, place) => place);
    this.outcome = this.#run();
  }

  isBusy(key: string): boolean {
    if (this.#pending.length === 0) return false;
    this.#busy ??= new Set(this.#pending.map((place) => this.#message(place).key));
    return this.#busy.has(key);
  }

  hasParked(key: string): boolean {
    return this.#outcomes.hasParked(key);
  }

  /** Sends batch after batch until all messages are sent, or until the page has to stop. */
  async #run(): Promise<PageOutcome> {
    const { circuit, outageDetector, progress } = this.#options;
    const patient = !this.#isFromLog;
    while (this.#pending.length > 0 && !this.#stop.aborted) {
      this.#options.lost.throwIfAborted();
      const pass = circuit.tryEnter(patient) ?? (await circuit.enter(patient, this.#stop, this.#options.lost));
      if (pass === undefined) continue;
      const next = this.#next(pass.probe && !outageDetector.exhausted ? PROBE_SIZE : Infinity);
      if (next.batch.length > 0 && !this.#options.lost.aborted) await this.#sendBatch(pass, next);
      else await this.#sendNothing(pass, next);
    }
    progress.ring();
    return this.#outcomes.outcome(this.#pending);
  }

  /**
   * Chooses the messages that can be sent now. Unless the publisher keeps key order within a batch, it chooses at most
   * one message for each key.
   */
  #next(most: number): Next {
    const { publisher, batchBytes } = this.#options;
    const inBatch = publisher.batchKeepsKeyOrder === true ? undefined : new Set<string>();
    const batch: number[] = [];
    const rest: number[] = [];
    /** Keys with a message that has to wait. Later messages with such a key also have to wait. */
    const waiting = new Set<string>();
    let bytes = 0;
    for (const place of this.#pending) {
      const message = this.#message(place);
      const { key } = message;
      if (key !== undefined && this.#isParked(key)) {
        this.#outcomes.behind(place);
        continue;
      }
      const size = batchBytes === Infinity ? 0 : sizeOf(message);
      const isFull = batch.length >= most || (batch.length > 0 && bytes + size > batchBytes);
      const mustWait =
        key !== undefined && (waiting.has(key) || inBatch?.has(key) === true || this.#earlier.isBusy(key));
      const unreadable = this.#page.unreadable?.get(message);
      if (isFull || mustWait) {
        rest.push(place);
        if (key !== undefined) waiting.add(key);
      } else if (unreadable !== undefined) {
        this.#outcomes.unreadable(place, unreadable);
      } else {
        if (key !== undefined) inBatch?.add(key);
        bytes += size;
        batch.push(place);
      }
    }
    return { batch, rest };
  }

  async #sendBatch(pass: Pass, { batch, rest }: Next): Promise<void> {
    const { circuit, clock, progress } = this.#options;
    let answer: Answer | undefined;
    try {
      const sentAt = clock.now();
      const results = await send(this.#messagesOf(batch), this.#options, pass);
      this.#options.lost.throwIfAborted();
      const now = this.#outcomes.postpone(batch, results, { sentAt, pass });
      const taken = this.#outcomes.take(now.batch, rest, now.results, clock.now() - sentAt);
      this.#setPending(taken.pending);
      answer = taken;
    } finally {
      circuit.leave(pass, answer);
      progress.ring();
    }
  }

  /**
   * Sends nothing, because the rest of the page has to wait for earlier pages. There must be no `await` between the
   * check of the earlier pages and this wait. Otherwise, a ring of `progress` could be missed.
   */
  async #sendNothing(pass: Pass, { rest }: Next): Promise<void> {
    const { circuit, clock, progress } = this.#options;
    circuit.leave(pass);
    this.#setPending(rest);
    if (rest.length > 0) await progress.wait(clock, Infinity, this.#stop, this.#options.lost);
  }

  #setPending(places: readonly number[]): void {
    this.#pending = places;
    this.#busy = undefined;
  }

  #isParked(key: string): boolean {
    return this.#outcomes.hasParked(key) || (this.#isFromLog && this.#earlier.isParked(key));
  }

  get #isFromLog(): boolean {
    return this.#page.attempts === undefined;
  }

  #messagesOf(batch: readonly number[]): readonly Message[] {
    const { messages } = this.#page;
    return batch.length === messages.length ? messages : batch.map((place) => this.#message(place));
  }

  #message(place: number): Message {
    return this.#page.messages[place] as Message;
  }
}

/**
 * Waits for the answer to a slow call. Then decides what happens to the call's messages, as for other parked messages.
 */
export async function publishLate(
  { page, results, sentAt, pass }: Late,
  options: PublishPageOptions,
): Promise<PageOutcome> {
  const all = await results;
  options.lost.throwIfAborted();
  const outcomes = new Outcomes(page, options);
  const places = page.messages.map((_, place) => place);
  const taken = outcomes.take(places, [], all, options.clock.now() - sentAt);
  // Ignore a suspected outage. Other calls were acknowledged while this call was in flight, and its messages have
  // nothing in common except that they were sent in one call.
  const outage = taken.outage?.certain === true ? taken.outage : undefined;
  options.circuit.leave({ ...pass, probe: false }, { acknowledged: taken.acknowledged, outage });
  const outcome = outcomes.outcome(taken.pending);
  // Nothing is known about the untried messages, so they are due at once.
  return { ...outcome, untried: outcome.untried.map((each) => ({ ...each, retryIn: 0 })) };
}

const encoder = new TextEncoder();

/** Returns roughly how many bytes a message takes, including its payload, metadata, id, topic and key. */
function sizeOf({ id, payload, metadata, topic = '', key = '' }: Message): number {
  const texts = [id, topic, key, ...Object.entries(metadata).flat()];
  return payload.byteLength + encoder.encode(texts.join('')).byteLength;
}

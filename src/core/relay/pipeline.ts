import type { Feed, Page, ToPark } from '../contracts/feed.js';
import { Capacity } from './capacity.js';
import { PageLog } from './page-log.js';
import { publishLate, publishPage, type Publication } from '../publish/page.js';
import { isPaced } from '../publish/single-publisher.js';
import { hasChanged, NONE_EARLIER, type PageOutcome, type PublishPageOptions } from '../publish/types.js';
import { begun, Bell, isAborted, onAbort, serially, sleepBy } from '../util/async.js';

/**
 * Less than a full page waits for so long for others to be settled with it. A thousand messages a second come
 * in pages of one or two: settling each by itself is a third of all that a relay has the server do. Milliseconds.
 */
const GATHERING = 50;

/**
 * How many times `depth` pages may be published and not settled, however small: each message is compared with all
 * that are before it.
 */
const SMALL_PAGES = 16;

/** What a pipeline needs to know beyond what publishing each page does. */
export interface PipelineOptions {
  readonly feed: Feed;
  /** How many messages a page has at most. */
  readonly pageSize: number;
  /** How many pages may be published at once, and, in messages, be published and not settled. */
  readonly depth: number;
  /** Ends the work after what is in flight is settled. */
  readonly stop: AbortSignal;
  readonly publishing: Omit<PublishPageOptions, 'progress' | 'lost' | 'stop'>;
  /** Told of each page that was settled. */
  readonly onSettled: (toPark: readonly ToPark[]) => void;
}

/**
 * The pages that are published and settled at the same time: so many at once, settled in the order in
 * which they were read, and in order per key across them.
 */
export class Pipeline {
  /** Rings when a page was settled. */
  readonly settled = new Bell();
  readonly #options: PipelineOptions;
  readonly #publishOptions: PublishPageOptions;
  /** Ends all of it: told to stop, or something failed. */
  readonly #over = new AbortController();
  /** Ends what was begun since partitions last changed hands: no call begins after it. */
  #round = new AbortController();
  readonly #forget: () => void;
  /** Rings when a page has got further. */
  readonly #progress = new Bell();
  /** Rings when there may be a reason to settle. */
  readonly #ripe = new Bell();
  readonly #log: PageLog;
  readonly #capacity: Capacity;
  readonly #running = new Set<Promise<unknown>>();
  #settledAt = -Infinity;
  #lastOfLog: Promise<unknown> = Promise.resolve();
  /** Whoever looks into the side table, or changes it, does so alone. */
  readonly #inTurn = serially();
  #failure: { readonly error: unknown } | undefined;
  #unsettled: { readonly error: unknown } | undefined;

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { stop, feed, publishing, depth, pageSize } = options;
    this.#log = new PageLog(feed);
    this.#capacity = new Capacity({ depth, pageSize, countsLate: !isPaced(publishing.publisher) });
    const round = () => this.round;
    this.#publishOptions = {
      ...publishing,
      progress: this.#progress,
      get stop() {
        return round();
      },
      get lost() {
        return feed.lost;
      },
    };
    const onStop = () => {
      this.#end(stop.reason);
    };
    this.#forget = onAbort(stop, onStop);
    if (stop.aborted) onStop();
  }

  /** Aborted when nothing more is to be begun. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /** Aborted when partitions are to change hands, or all is over: what was only read until then is let go. */
  get round(): AbortSignal {
    return this.#round.signal;
  }

  /** Whether a slow call is waited for. */
  get isLate(): boolean {
    return this.#capacity.isLate;
  }

  get isIdle(): boolean {
    return this.#capacity.isIdle;
  }

  /**
   * Waits for room for one page more, of this round where one is given, or else of any.
   *
   * @returns whether there is some; not when the round, or all, is over.
   */
  async enter(round = this.over): Promise<boolean> {
    while (!round.aborted) {
      if (!this.round.aborted && this.#capacity.mayCall && this.#hasRoom) {
        this.#capacity.enter();
        return true;
      }
      if (this.#isRipe) this.#ripe.ring();
      await this.#capacity.freed.wait(this.#options.publishing.clock, Infinity, round);
    }
    return false;
  }

  /** Gives the room of a page back, of which nothing came. */
  leave(): void {
    this.#capacity.leave();
  }

  get #hasRoom(): boolean {
    return this.#capacity.hasRoom && this.#log.size < SMALL_PAGES * this.#options.depth;
  }

  /** Messages that were parked and are due; never while settling is under way. */
  retries(): Promise<Page> {
    return this.#inTurn(() => this.#options.feed.retries({ signal: this.round }));
  }

  /** Publishes and settles a page of the log, in the room that it was given, which it gives back. */
  publish(page: Page): void {
    const entry = this.#log.publish(page, (earlier) => publishPage(page, this.#publishOptions, earlier));
    const previous = this.#lastOfLog;
    const settled = this.#run(page, async () => {
      const outcome = await this.#outcomeOf(entry.publication);
      this.#log.published(entry, outcome);
      if (this.#isRipe) this.#ripe.ring();
      await previous;
      if (entry.settlement === undefined) await this.#gathering();
      // Its room is free once it is settled itself, whatever else is settled in that turn.
      if (entry.settlement === undefined) await begun(this.#inTurn, () => this.#settleLog());
      await entry.settlement;
      this.#followUp(outcome);
    });
    this.#lastOfLog = settled;
    settled.catch(() => undefined);
  }

  /** The same for messages that were parked. @returns how many were acknowledged. */
  async publishRetries(page: Page): Promise<number> {
    return this.#run(page, async () => {
      // Its keys are its own: what is new of them is parked as long as they are.
      const outcome = await this.#outcomeOf(publishPage(page, this.#publishOptions, NONE_EARLIER));
      if (hasChanged(outcome)) await this.#inTurn(() => this.#settle(page, outcome));
      this.#followUp(outcome);
      return outcome.acknowledged;
    });
  }

  /** Waits for calls that were slow, in the room that they had, and settles each as it is answered. */
  #followUp({ late }: PageOutcome): void {
    for (const each of late) {
      this.#capacity.awaitLate();
      const work = async () => {
        const outcome = await publishLate(each, this.#publishOptions);
        await this.#inTurn(() => this.#settle(each.page, outcome));
      };
      this.#run(each.page, work)
        .catch(() => undefined)
        .finally(() => {
          this.#capacity.answeredLate();
        });
    }
  }

  /** Begins no more calls, so that `handOver` need not wait for what was only read. */
  endRound(): void {
    this.#round.abort();
    this.#ripe.ring();
  }

  /**
   * Waits until every call that was begun is answered and settled, and lets partitions change hands. Of a page that was
   * begun the rest is parked, due at once; a page that was not is dropped, and read again by whoever holds it then.
   */
  async handOver(work: () => Promise<void>): Promise<void> {
    this.endRound();
    while (!this.isIdle) await this.#capacity.freed.wait(this.#options.publishing.clock, Infinity);
    if (this.over.aborted) return;
    await work();
    this.#log.clear();
    if (isAborted(this.over)) return;
    this.#round = new AbortController();
    this.#capacity.freed.ring();
  }

  /** Sleeps, and no longer than there is something to do it for. */
  async sleep(ms: number): Promise<void> {
    await sleepBy(this.#options.publishing.clock, ms, this.over, this.#options.feed.lost);
  }

  /** Begins nothing more; the first error is what `end` throws. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#end();
  }

  /** Waits for what is in flight. @throws what failed first. */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    this.#forget();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #end(reason?: unknown): void {
    this.#over.abort(reason);
    this.#round.abort(this.over.reason);
  }

  /** Waits for a publication, which makes room to publish another page. */
  async #outcomeOf({ outcome }: Publication): Promise<PageOutcome> {
    let late = 0;
    try {
      const result = await outcome;
      late = result.late.length;
      return result;
    } finally {
      this.#capacity.published(late);
    }
  }

  /** Waits for a full page to settle, or as long as less is worth waiting for. */
  async #gathering(): Promise<void> {
    const { clock } = this.#options.publishing;
    while (!this.#isRipe) {
      const left = this.#settledAt + GATHERING - clock.now();
      if (left <= 0) return;
      await this.#ripe.wait(clock, left, this.round);
    }
  }

  /** Whether what is gathered is settled at once. */
  get #isRipe(): boolean {
    return this.#log.gathered >= this.#options.pageSize || !this.#hasRoom || this.round.aborted;
  }

  /** Works on a page that has room, which it gives back; a failure is the end of all. */
  #run<T>({ messages: { length } }: Page, work: () => Promise<T>): Promise<T> {
    // As little as it needs.
    this.#capacity.free(this.#options.pageSize - length);
    const running = work()
      .catch((error: unknown) => {
        this.fail(error);
        throw error;
      })
      .finally(() => {
        this.#running.delete(running);
        this.#capacity.free(length);
      });
    this.#running.add(running);
    return running;
  }

  /** Settles what of the log is ready for it. */
  #settleLog(): Promise<void> {
    this.#settledAt = this.#options.publishing.clock.now();
    return this.#log.settle((page, outcome) => this.#settle(page, outcome));
  }

  async #settle(page: Page, outcome: PageOutcome): Promise<void> {
    // After one that failed nobody knows what the store has, until it is asked anew.
    if (this.#unsettled !== undefined) throw this.#unsettled.error;
    const toPark = [...outcome.toPark, ...outcome.untried];
    try {
      await this.#options.feed.settle(page, toPark);
    } catch (error) {
      this.#unsettled = { error };
      throw error;
    }
    this.#tellSettled(toPark);
  }

  #tellSettled(toPark: readonly ToPark[]): void {
    // One before it, in the same turn, may have failed: then the store does not work.
    if (this.#unsettled !== undefined) return;
    this.#options.onSettled(toPark);
    this.settled.ring();
  }
}

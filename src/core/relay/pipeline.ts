import type { Feed, Page, ToPark } from '../contracts/feed.js';
import { Capacity } from './capacity.js';
import { PageLog } from './page-log.js';
import { publishLate, publishPage, type Publication } from '../publish/page.js';
import { isPaced } from '../publish/single-publisher.js';
import { hasChanged, NONE_EARLIER, type PageOutcome, type PublishPageOptions } from '../publish/types.js';
import { begun, Bell, isAborted, onAbort, serially, sleepBy } from '../util/async.js';

/**
 * How many milliseconds a page that is not full waits to be settled together with others. At a thousand messages a
 * second, settling each page by itself would cause a third of the relay's load on the database server.
 */
const GATHERING = 50;

/** The limit on unsettled pages, as a multiple of `depth`. Each message is compared with all earlier pages. */
const SMALL_PAGES = 16;

/** The pipeline's options in addition to the options for publishing a page. */
export interface PipelineOptions {
  readonly feed: Feed;
  /** The maximum number of messages in a page. */
  readonly pageSize: number;
  /**
   * How many pages can be published at once. At any time, the messages that are being published or settled can fill at
   * most this many pages.
   */
  readonly depth: number;
  /** Once this signal aborts, the work ends after the messages in flight are settled. */
  readonly stop: AbortSignal;
  readonly publishing: Omit<PublishPageOptions, 'progress' | 'lost' | 'stop'>;
  /** Called after each page is settled, with the messages that were parked. */
  readonly onSettled: (toPark: readonly ToPark[]) => void;
}

/**
 * Publishes and settles several pages at the same time. It settles the pages in the order in which they were read, and
 * keeps the order of each key across them.
 */
export class Pipeline {
  /** Rings when a page was settled. */
  readonly settled = new Bell();
  readonly #options: PipelineOptions;
  readonly #publishOptions: PublishPageOptions;
  /** Aborts when all work must end, because the pipeline has to stop, or because something failed. */
  readonly #over = new AbortController();
  /** Aborts at the end of a round, before partitions change hands. Work of the round then begins no more calls. */
  #round = new AbortController();
  readonly #forget: () => void;
  /** Rings when a page has made progress. */
  readonly #progress = new Bell();
  /** Rings when there may be a reason to settle. */
  readonly #ripe = new Bell();
  readonly #log: PageLog;
  readonly #capacity: Capacity;
  readonly #running = new Set<Promise<unknown>>();
  #settledAt = -Infinity;
  #lastOfLog: Promise<unknown> = Promise.resolve();
  /** Prevents overlaps between reading parked messages and settling. */
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

  /** Aborts when no more work may begin. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /** Aborts when partitions must change hands, or when all work must end. Pages that were only read are dropped. */
  get round(): AbortSignal {
    return this.#round.signal;
  }

  /** Whether the pipeline is waiting for a slow call. */
  get isLate(): boolean {
    return this.#capacity.isLate;
  }

  get isIdle(): boolean {
    return this.#capacity.isIdle;
  }

  /**
   * Waits until there is room for one more page, and reserves it. If `round` is given, it waits only until that round
   * ends.
   *
   * @returns whether room was reserved; `false` if the round has ended, or all work has.
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

  /** Releases the room that was reserved for a page that is not published after all. */
  leave(): void {
    this.#capacity.leave();
  }

  get #hasRoom(): boolean {
    return this.#capacity.hasRoom && this.#log.size < SMALL_PAGES * this.#options.depth;
  }

  /** Reads the parked messages that are due. Never runs while a settlement is in progress. */
  retries(): Promise<Page> {
    return this.#inTurn(() => this.#options.feed.retries({ signal: this.round }));
  }

  /** Publishes and settles a page from the log, in the room that `enter` reserved. Then releases the room. */
  publish(page: Page): void {
    const entry = this.#log.publish(page, (earlier) => publishPage(page, this.#publishOptions, earlier));
    const previous = this.#lastOfLog;
    const settled = this.#run(page, async () => {
      const outcome = await this.#outcomeOf(entry.publication);
      this.#log.published(entry, outcome);
      if (this.#isRipe) this.#ripe.ring();
      await previous;
      if (entry.settlement === undefined) await this.#gathering();
      // Wait only until the turn has begun. This page's room is released once the page itself is settled, whatever
      // happens to other pages in the same turn.
      if (entry.settlement === undefined) await begun(this.#inTurn, () => this.#settleLog());
      await entry.settlement;
      this.#followUp(outcome);
    });
    this.#lastOfLog = settled;
    settled.catch(() => undefined);
  }

  /** Publishes and settles a page of parked messages. @returns how many were acknowledged. */
  async publishRetries(page: Page): Promise<number> {
    return this.#run(page, async () => {
      // No other page has messages with these keys, because new messages with these keys are parked as long as these
      // messages are.
      const outcome = await this.#outcomeOf(publishPage(page, this.#publishOptions, NONE_EARLIER));
      if (hasChanged(outcome)) await this.#inTurn(() => this.#settle(page, outcome));
      this.#followUp(outcome);
      return outcome.acknowledged;
    });
  }

  /** Waits for slow calls, which have their own room, and settles each of them once it is answered. */
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

  /** Prevents any more calls in this round, so that `handOver` does not have to wait for pages that were only read. */
  endRound(): void {
    this.#round.abort();
    this.#ripe.ring();
  }

  /**
   * Waits until every call in flight is answered and settled. Then runs `work`, during which partitions change hands.
   * If a page was partly published, its remaining messages are parked, and are due at once. A page that was not begun
   * is dropped, and whichever relay then holds its partitions reads it again.
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

  /** Sleeps for `ms` milliseconds, or until all work must end or the lease is lost. */
  async sleep(ms: number): Promise<void> {
    await sleepBy(this.#options.publishing.clock, ms, this.over, this.#options.feed.lost);
  }

  /** Ends all work because of an error. `end` throws the first error that was passed here. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#end();
  }

  /** Waits for all work in flight. @throws the first error. */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    this.#forget();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #end(reason?: unknown): void {
    this.#over.abort(reason);
    this.#round.abort(this.over.reason);
  }

  /** Waits until a publication has ended, and then makes room for publishing another page. */
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

  /** Waits until there is a full page to settle, or until a longer wait is not worthwhile. */
  async #gathering(): Promise<void> {
    const { clock } = this.#options.publishing;
    while (!this.#isRipe) {
      const left = this.#settledAt + GATHERING - clock.now();
      if (left <= 0) return;
      await this.#ripe.wait(clock, left, this.round);
    }
  }

  /** Whether the gathered pages should be settled at once. */
  get #isRipe(): boolean {
    return this.#log.gathered >= this.#options.pageSize || !this.#hasRoom || this.round.aborted;
  }

  /** Runs the work for a page that has reserved room, and then releases this room. A failure ends all work. */
  #run<T>({ messages: { length } }: Page, work: () => Promise<T>): Promise<T> {
    // Keep only as much room as the page needs.
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

  /** Settles the pages of the log that are ready to be settled. */
  #settleLog(): Promise<void> {
    this.#settledAt = this.#options.publishing.clock.now();
    return this.#log.settle((page, outcome) => this.#settle(page, outcome));
  }

  async #settle(page: Page, outcome: PageOutcome): Promise<void> {
    // After a settlement has failed, the state of the store is unknown until it is read again.
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
    // If an earlier settlement in the same turn has failed, the store is not working.
    if (this.#unsettled !== undefined) return;
    this.#options.onSettled(toPark);
    this.settled.ring();
  }
}

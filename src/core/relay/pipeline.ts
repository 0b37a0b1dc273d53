import type { Feed, Page, SetAside } from '../contracts/feed.js';
import { publishLate, publishPage, type Publication } from '../publish/page.js';
import { isPaced } from '../publish/single-publisher.js';
import { NONE_EARLIER, type Earlier, type PageOutcome, type PublishPageOptions } from '../publish/types.js';
import { Bell, isAborted, onAbort, serially, sleepBy } from '../util/async.js';

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
  readonly onSettled: (setAside: readonly SetAside[]) => void;
}

/** A page of the log that is not settled yet. */
interface InFlight {
  /** Counted from the first page of this pipeline. */
  readonly place: number;
  readonly page: Page;
  readonly publication: Publication;
  /** What its publication came to, once it is over. */
  outcome: PageOutcome | undefined;
  /** Its settlement, once that has begun. */
  settlement: Promise<void> | undefined;
  /** The store knows what was set aside, dead letters too. */
  isSettled: boolean;
}

/** Whether something is so of a key in any page before this one. Asked for each message: nothing is made for it. */
type IsEarlier = (is: (each: InFlight, key: string) => boolean, key: string) => boolean;

const isBusy = ({ publication }: InFlight, key: string) => publication.isBusy(key);
const hasSetAside = ({ isSettled, publication }: InFlight, key: string) => !isSettled && publication.hasSetAside(key);

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
  /** Rings when there may be room for another page. */
  readonly #room = new Bell();
  /** Rings when there may be a reason to settle. */
  readonly #ripe = new Bell();
  readonly #log = new Set<InFlight>();
  #places = 0;
  readonly #running = new Set<Promise<unknown>>();
  /** Pages that are being published, or may be. */
  #publishing = 0;
  /** Messages that are published, or may be, and not settled: a page counts in full until it is there. */
  #inFlight = 0;
  /** Calls that were slow, and are not answered. */
  #late = 0;
  /** Of these, messages of the log whose publication is over, and whose settlement has not begun. */
  #gathered = 0;
  #settledAt = -Infinity;
  #lastOfLog: Promise<unknown> = Promise.resolve();
  /** Whoever looks into the side table, or changes it, does so alone. */
  readonly #inTurn = serially();
  #failure: { readonly error: unknown } | undefined;
  #unsettled: { readonly error: unknown } | undefined;

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { stop, feed, publishing } = options;
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
    return this.#late > 0;
  }

  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /**
   * Waits for room for one page more, of this round where one is given, or else of any.
   *
   * @returns whether there is some; not when the round, or all, is over.
   */
  async enter(round = this.over): Promise<boolean> {
    const { depth, pageSize, publishing } = this.#options;
    while (!round.aborted) {
      if (!this.round.aborted && this.#calling < depth && this.#hasRoom) {
        this.#publishing += 1;
        this.#inFlight += pageSize;
        return true;
      }
      if (this.#isRipe) this.#ripe.ring();
      await this.#room.wait(publishing.clock, Infinity, round);
    }
    return false;
  }

  /** Gives the room of a page back, of which nothing came. */
  leave(): void {
    this.#publishing -= 1;
    this.#free(this.#options.pageSize);
  }

  /**
   * Pages that are being published, and slow calls of a batch form: how many calls there are at once. A page of several calls
   * sends its next one beside a slow one, and is counted once.
   */
  get #calling(): number {
    return this.#publishing + (isPaced(this.#options.publishing.publisher) ? 0 : this.#late);
  }

  get #hasRoom(): boolean {
    const { depth, pageSize } = this.#options;
    return this.#inFlight + pageSize <= depth * pageSize && this.#log.size < SMALL_PAGES * depth;
  }

  /** Messages that were set aside and are due; never while settling is under way. */
  retries(): Promise<Page> {
    return this.#inTurn(() => this.#options.feed.retries({ signal: this.round }));
  }

  /** Publishes and settles a page of the log, in the room that it was given, which it gives back. */
  publish(page: Page): void {
    const place = (this.#places += 1);
    // Looked at anew each time: a copy would hold the pages before, and they those before them, without end.
    const isEarlier: IsEarlier = (is, key) => {
      for (const each of this.#log) {
        if (each.place >= place) return false;
        if (is(each, key)) return true;
      }
      return false;
    };
    const entry: InFlight = {
      place,
      page,
      publication: publishPage(page, this.#publishOptions, this.#earlier(isEarlier)),
      outcome: undefined,
      settlement: undefined,
      isSettled: false,
    };
    this.#log.add(entry);
    const previous = this.#lastOfLog;
    const settled = this.#run(page, async () => {
      entry.outcome = await this.#outcomeOf(entry.publication);
      this.#gathered += page.messages.length;
      if (this.#isRipe) this.#ripe.ring();
      await previous;
      if (entry.settlement === undefined) await this.#gathering();
      // Its room is free once it is settled itself, whatever else is settled in that turn.
      if (entry.settlement === undefined) await this.#begun(() => this.#settleLog());
      await entry.settlement;
      this.#followUp(entry.outcome);
    });
    this.#lastOfLog = settled;
    settled.catch(() => undefined);
  }

  /** The same for messages that were set aside. @returns how many were acknowledged. */
  async publishRetries(page: Page): Promise<number> {
    return this.#run(page, async () => {
      // Its keys are its own: what is new of them is set aside as long as they are.
      const outcome = await this.#outcomeOf(publishPage(page, this.#publishOptions, NONE_EARLIER));
      if (hasChanged(outcome)) await this.#inTurn(() => this.#settle(page, outcome));
      this.#followUp(outcome);
      return outcome.acknowledged;
    });
  }

  /** Waits for calls that were slow, in the room that they had, and settles each as it is answered. */
  #followUp({ late }: PageOutcome): void {
    for (const each of late) {
      this.#inFlight += this.#options.pageSize;
      const work = async () => {
        const outcome = await publishLate(each, this.#publishOptions);
        await this.#inTurn(() => this.#settle(each.page, outcome));
      };
      this.#run(each.page, work)
        .catch(() => undefined)
        .finally(() => {
          this.#late -= 1;
          this.#room.ring();
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
   * begun the rest is set aside, due at once; a page that was not is dropped, and read again by whoever holds it then.
   */
  async handOver(work: () => Promise<void>): Promise<void> {
    this.endRound();
    while (this.#inFlight > 0) await this.#room.wait(this.#options.publishing.clock, Infinity);
    if (this.over.aborted) return;
    await work();
    this.#log.clear();
    this.#gathered = 0;
    if (isAborted(this.over)) return;
    this.#round = new AbortController();
    this.#room.ring();
  }

  /** Sleeps, and no longer than there is something to do it for. */
  async sleep(ms: number): Promise<void> {
    await sleepBy(this.#options.publishing.clock, ms, this.over, this.#options.feed.lost);
  }

  /** Begins nothing more; the first error is what `end` throws. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.finish();
  }

  /** Begins nothing more. */
  finish(): void {
    this.#end();
  }

  /** Waits for what is in flight. @throws what failed first. */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    this.#forget();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** What a page of the log has to know of those before it. */
  #earlier(isEarlier: IsEarlier): Earlier {
    const { feed } = this.#options;
    return {
      isBusy: (key) => isEarlier(isBusy, key),
      isSetAside: (key) => feed.isSetAside(key) || isEarlier(hasSetAside, key),
    };
  }

  #end(reason?: unknown): void {
    this.#over.abort(reason);
    this.#round.abort(this.over.reason);
  }

  #free(messages: number): void {
    this.#inFlight -= messages;
    this.#room.ring();
  }

  /** Waits for a publication, which makes room to publish another page. */
  async #outcomeOf({ outcome }: Publication): Promise<PageOutcome> {
    try {
      const result = await outcome;
      this.#late += result.late.length;
      return result;
    } finally {
      this.#publishing -= 1;
      this.#room.ring();
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
    return this.#gathered >= this.#options.pageSize || !this.#hasRoom || this.round.aborted;
  }

  /** Works on a page that has room, which it gives back; a failure is the end of all. */
  #run<T>({ messages: { length } }: Page, work: () => Promise<T>): Promise<T> {
    // As little as it needs.
    this.#free(this.#options.pageSize - length);
    const running = work()
      .catch((error: unknown) => {
        this.fail(error);
        throw error;
      })
      .finally(() => {
        this.#running.delete(running);
        this.#free(length);
      });
    this.#running.add(running);
    return running;
  }

  /** Asked anew: the type checker believes a field to stay as it was when last looked at. */
  #hasFailed(): boolean {
    return this.#unsettled !== undefined;
  }

  /**
   * Settles the first pages of the log whose publication is over: what is settled at once, a store can
   * settle as one. Pages that nothing was done with before the end only if a later one is.
   */
  async #settleLog(): Promise<void> {
    const over: { readonly entry: InFlight; readonly outcome: PageOutcome }[] = [];
    for (const entry of this.#log) {
      if (entry.outcome === undefined) break;
      over.push({ entry, outcome: entry.outcome });
    }
    const last = over.findLastIndex(({ outcome }) => hasChanged(outcome));
    this.#settledAt = this.#options.publishing.clock.now();
    const settlements = over.slice(0, last + 1).map(async ({ entry, outcome }) => {
      this.#gathered -= entry.page.messages.length;
      entry.settlement = this.#settle(entry.page, outcome);
      await entry.settlement;
      entry.isSettled = true;
      this.#log.delete(entry);
    });
    await Promise.allSettled(settlements);
  }

  /** Waits for its turn, and not for the work to be over. */
  #begun(work: () => Promise<void>): Promise<void> {
    return new Promise((begin) => {
      void this.#inTurn(() => {
        const done = work();
        begin();
        return done;
      });
    });
  }

  async #settle(page: Page, outcome: PageOutcome): Promise<void> {
    // After one that failed nobody knows what the store has, until it is asked anew.
    if (this.#unsettled !== undefined) throw this.#unsettled.error;
    const setAside = [...outcome.setAside, ...outcome.untried];
    try {
      await this.#options.feed.settle(page, setAside);
    } catch (error) {
      this.#unsettled = { error };
      throw error;
    }
    // One before it, in the same turn, may have failed: then the store does not work.
    if (this.#hasFailed()) return;
    this.#options.onSettled(setAside);
    this.settled.ring();
  }
}

/** Whether there is anything to settle: a page of which nothing was tried stays as it was. */
export function hasChanged({ acknowledged, setAside }: PageOutcome): boolean {
  return acknowledged > 0 || setAside.length > 0;
}

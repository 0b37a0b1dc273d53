import type { Feed, Page } from '../contracts/feed.js';
import type { Publication } from '../publish/page.js';
import { hasChanged, type Earlier, type PageOutcome } from '../publish/types.js';

/** A page of the log that is not settled yet. */
export interface LogPage {
  /** Counted from the first page. */
  readonly place: number;
  readonly page: Page;
  readonly publication: Publication;
  /** What its publication came to, once it is over. */
  outcome: PageOutcome | undefined;
  /** Its settlement, once that has begun. */
  settlement: Promise<void> | undefined;
  /** The store knows what was parked, dead letters too. */
  isSettled: boolean;
}

/** Whether something is so of a key in any page before this one. Asked for each message: nothing is made for it. */
type IsEarlier = (is: (each: LogPage, key: string) => boolean, key: string) => boolean;

const isBusy = ({ publication }: LogPage, key: string) => publication.isBusy(key);
const hasParked = ({ isSettled, publication }: LogPage, key: string) => !isSettled && publication.hasParked(key);

/** The pages of the log that are published and not settled, in the order in which they were read. */
export class PageLog {
  readonly #feed: Feed;
  readonly #pages = new Set<LogPage>();
  #places = 0;
  #gathered = 0;

  constructor(feed: Feed) {
    this.#feed = feed;
  }

  get size(): number {
    return this.#pages.size;
  }

  /** How many messages there are whose publication is over, and whose settlement has not begun. */
  get gathered(): number {
    return this.#gathered;
  }

  /** Begins to publish a page, which is told of those before it. */
  publish(page: Page, begin: (earlier: Earlier) => Publication): LogPage {
    const place = (this.#places += 1);
    // Looked at anew each time: a copy would hold the pages before, and they those before them, without end.
    const isEarlier: IsEarlier = (is, key) => {
      for (const each of this.#pages) {
        if (each.place >= place) return false;
        if (is(each, key)) return true;
      }
      return false;
    };
    const publication = begin({
      isBusy: (key) => isEarlier(isBusy, key),
      isParked: (key) => this.#feed.isParked(key) || isEarlier(hasParked, key),
    });
    const entry: LogPage = { place, page, publication, outcome: undefined, settlement: undefined, isSettled: false };
    this.#pages.add(entry);
    return entry;
  }

  /** The publication of a page is over. */
  published(entry: LogPage, outcome: PageOutcome): void {
    entry.outcome = outcome;
    this.#gathered += entry.page.messages.length;
  }

  /**
   * Settles the first pages whose publication is over: what is settled at once, a store can settle as one. Pages that
   * nothing was done with before the end only if a later one is. Never rejects: each page has its settlement.
   */
  async settle(settle: (page: Page, outcome: PageOutcome) => Promise<void>): Promise<void> {
    const over: { readonly entry: LogPage; readonly outcome: PageOutcome }[] = [];
    for (const entry of this.#pages) {
      if (entry.outcome === undefined) break;
      over.push({ entry, outcome: entry.outcome });
    }
    const last = over.findLastIndex(({ outcome }) => hasChanged(outcome));
    const settlements = over.slice(0, last + 1).map(async ({ entry, outcome }) => {
      this.#gathered -= entry.page.messages.length;
      entry.settlement = settle(entry.page, outcome);
      await entry.settlement;
      entry.isSettled = true;
      this.#pages.delete(entry);
    });
    await Promise.allSettled(settlements);
  }

  /** Forgets all of it: what is left of it was not begun, and is read again. */
  clear(): void {
    this.#pages.clear();
    this.#gathered = 0;
  }
}

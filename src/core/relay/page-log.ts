import type { Feed, Page } from '../contracts/feed.js';
import type { Publication } from '../publish/page.js';
import { hasChanged, type Earlier, type PageOutcome } from '../publish/types.js';

/** A page from the log that is not settled yet. */
export interface LogPage {
  /** The page's position in the order in which pages were read, counted from 1. */
  readonly place: number;
  readonly page: Page;
  readonly publication: Publication;
  /** The outcome of the page's publication, once it has ended. */
  outcome: PageOutcome | undefined;
  /** The promise of the page's settlement, once it has begun. */
  settlement: Promise<void> | undefined;
  /** Whether the store has recorded which of the page's messages were parked, including dead letters. */
  isSettled: boolean;
}

/**
 * Whether `is` returns true for any page before this one and the given key. This function is called for each message,
 * so it must not allocate.
 */
type IsEarlier = (is: (each: LogPage, key: string) => boolean, key: string) => boolean;

const isBusy = ({ publication }: LogPage, key: string) => publication.isBusy(key);
const hasParked = ({ isSettled, publication }: LogPage, key: string) => !isSettled && publication.hasParked(key);

/** The pages of the log that are being published or settled, in the order in which they were read. */
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

  /** How many messages are in pages whose publication has ended, but whose settlement has not begun. */
  get gathered(): number {
    return this.#gathered;
  }

  /** Begins to publish a page, and gives it access to the pages before it. */
  publish(page: Page, begin: (earlier: Earlier) => Publication): LogPage {
    const place = (this.#places += 1);
    // Iterate over the current pages each time. A copy of the list would keep all earlier pages in memory, because each
    // page would keep the pages before it.
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

  /** Records that the publication of a page has ended. */
  published(entry: LogPage, outcome: PageOutcome): void {
    entry.outcome = outcome;
    this.#gathered += entry.page.messages.length;
  }

  /**
   * Settles the oldest pages, up to the first page whose publication has not ended. The settlements run at the same
   * time, so that a store can combine them. If nothing was done in the last of these pages, those pages wait until a
   * later page is settled. Never rejects: each page's own `settlement` rejects instead.
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

  /** Forgets all pages. The remaining pages were not begun, and will be read again. */
  clear(): void {
    this.#pages.clear();
    this.#gathered = 0;
  }
}

import { MessengerError } from '../../../core/errors.js';
import type { ToPark } from '../../../core/contracts/feed.js';
import type { Message } from '../../../core/contracts/message.js';
import { serially } from '../../../core/util/async.js';
import type { PostgresFeed } from './feed.js';
import type { PostgresPage } from './page.js';
import type { StoredMessage } from '../sql/stored-message.js';

type Open = (pageSize: number, signal: AbortSignal | undefined) => Promise<PostgresFeed | null>;

/** The messages from the last call of `messages`, and their state since then. */
interface Returned {
  readonly shown: ReadonlySet<Message>;
  readonly page: PostgresPage;
  /** Messages that are in the side table. */
  readonly parked: Set<StoredMessage>;
  readonly done: Set<Message>;
  /** How many messages of the page the cursor has passed. */
  passed: number;
}

/**
 * Implements the plain `Store` contract with a feed. Messages can be listed again and again until they are published.
 */
export class Session {
  readonly #open: Open;
  #feed: PostgresFeed | undefined;
  #pageSize = 0;
  #returned: Returned | undefined;
  /** Calls run one after the other, because each call needs the result of the call before. */
  readonly #inTurn = serially();

  constructor(open: Open) {
    this.#open = open;
  }

  messages(batch: number, signal: AbortSignal | undefined): Promise<readonly Message[]> {
    return this.#inTurn(() => this.#list(batch, signal));
  }

  published(messages: readonly Message[]): Promise<void> {
    return this.#inTurn(() => this.#mark(messages));
  }

  close(): Promise<void> {
    return this.#inTurn(() => this.#forget());
  }

  async #list(batch: number, signal: AbortSignal | undefined): Promise<readonly Message[]> {
    const feed = await this.#opened(batch, signal);
    const { parked, page } = await this.#orForget(feed.unpublished(batch, signal));
    // Leave out a new message if parked messages with the same key come before it. If this list contains those parked
    // messages, the new message can follow them.
    const waiting = new Set(parked.messages.map(({ key }) => key));
    const fresh = page.messages.filter(({ key }) => key === undefined || waiting.has(key) || !feed.isParked(key));
    const shown = [...parked.messages, ...fresh].slice(0, batch);
    this.#returned = {
      shown: new Set<Message>(shown),
      page,
      parked: new Set(parked.messages),
      done: new Set(),
      passed: 0,
    };
    return shown;
  }

  async #mark(messages: readonly Message[]): Promise<void> {
    if (messages.length === 0) return;
    const returned = this.#returned;
    const stranger = messages.find((message) => !returned?.shown.has(message));
    if (!returned || !this.#feed || stranger) {
      throw new MessengerError(
        'UNKNOWN_MESSAGE',
        `message ${stranger?.id ?? ''} was not returned by the last call of messages(): nothing was marked as published`,
      );
    }
    const { page, parked, done, passed } = returned;
    const now = new Set(messages.filter((message) => !done.has(message)));
    const count = Math.max(passed, page.messages.findLastIndex((message) => now.has(message)) + 1);
    const gaps = page.messages.slice(passed, count).filter((message) => !now.has(message));
    await this.#orForget(
      this.#feed.settlePublished({
        parked: [...parked].filter((message) => now.has(message)),
        page,
        passed,
        count,
        gaps: gaps.map((message): ToPark => ({ message, attempts: 0, dead: false })),
      }),
    );
    for (const message of now) done.add(message);
    for (const message of gaps) parked.add(message);
    returned.passed = count;
  }

  async #forget(): Promise<void> {
    const feed = this.#feed;
    this.#feed = undefined;
    this.#returned = undefined;
    await feed?.close();
  }

  async #opened(pageSize: number, signal: AbortSignal | undefined): Promise<PostgresFeed> {
    if (this.#feed && (this.#pageSize !== pageSize || this.#feed.lost.aborted)) await this.#forget();
    if (this.#feed) return this.#feed;
    const feed = await this.#open(pageSize, signal);
    if (feed === null) {
      throw new MessengerError(
        'LEASE_LOST',
        'another relay holds the destination "default": messages() works for only one relay at a time',
      );
    }
    this.#feed = feed;
    this.#pageSize = pageSize;
    return feed;
  }

  /**
   * Waits for work with the feed. After an error, it forgets the feed, because the feed's state in memory may be
   * incorrect.
   */
  async #orForget<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      await this.#forget();
      throw error;
    }
  }
}

import { MessengerError, PublishError, toError } from './errors.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from './logger.js';
import { describe } from './message.js';
import { checkKeys, numberOption } from './options.js';
import { oneAtATime, openFeed } from './plain-feed.js';
import { asBatchPublisher } from './plain-publisher.js';
import { publishPage } from './publish-page.js';
import { isBatchPublisher, type BatchPublisher, type Publisher } from './publisher.js';
import { hasChanged, runRelay, type RelayOptions } from './relay.js';
import { isFeedStore, type Store } from './store.js';
import { uuidv7 } from './uuid.js';
import { withDeadline } from './wait.js';

/** How a `Messenger` is set up. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /** The longest pause of an idle relay; while there is work there is none. @default 1_000 */
  interval?: number;
  /** Clean up: delete published messages that are older than this. @default no clean-up */
  cleanUp?: number;
  /** Gets the errors that do not stop the relay. @default standard error */
  errorLogger?: ErrorLogger;
  /** The named destination that this relay works for, of a store that has destinations. @default 'default' */
  destination?: string;
  /** How many messages, of different keys, are in flight at once through a publisher without a batch form: 1 to 1,000. @default 10 */
  concurrency?: number;
  /** How long one call of the publisher may take before it counts as failed. @default 30_000 */
  publishTimeout?: number;
  /** How long a running relay puts up with a store that does not answer; 0 not at all. @default 30_000 */
  storeOutageLimit?: number;
  /** The first and the longest pause before a message that failed is tried again. @default { minDelay: 500, maxDelay: 300_000 } */
  retry?: { minDelay?: number; maxDelay?: number };
}

/** What a call can be told. */
export interface MessengerCallOptions {
  /** Ends the work after what is in flight is settled. */
  signal?: AbortSignal;
}

const KEYS = [
  ...(['publishBatchSize', 'interval', 'cleanUp', 'errorLogger', 'destination'] as const),
  ...(['concurrency', 'publishTimeout', 'storeOutageLimit', 'retry'] as const),
] satisfies (keyof MessengerOptions)[];

const DAY = 86_400_000;

/** The longest delay that `setTimeout` takes, in milliseconds. */
const MAX_TIMEOUT = 2_147_483_647;

/**
 * Publishes the messages of a store, and cleans the published ones away: at least once, in order per
 * key, nothing completed before the broker's acknowledgement.
 *
 * When the process dies, at most two pages of `publishBatchSize` messages are published again: one
 * that is being settled, and one that is being published meanwhile.
 *
 * @example
 * ```ts
 * const messenger = new Messenger(store, publisher, { cleanUp: 3_600_000 });
 * await messenger.start({ signal });
 * ```
 */
export class Messenger {
  readonly #options: Omit<RelayOptions, 'relay'>;
  readonly #cleanUp: number | undefined;
  #cleanedAt = -Infinity;

  /** @throws MessengerError `INVALID_OPTION` that names the option, its range and the value. */
  constructor(store: Store, publisher: Publisher, options: MessengerOptions = {}) {
    assertMethods(store, 'store', 'messages', 'published', 'deletePublishedByExpiration');
    assertMethods(publisher, 'publisher', 'publish');
    checkKeys(options, KEYS);
    const { errorLogger = consoleErrorLogger, destination = 'default', retry = {} } = options;
    checkKeys(retry, ['minDelay', 'maxDelay'] satisfies (keyof typeof retry)[]);
    assertMethods(errorLogger, 'errorLogger', 'error');
    if (typeof destination !== 'string' || destination === '') {
      throw new MessengerError(
        'INVALID_OPTION',
        `destination must be a non-empty string, got ${describe(destination)}`,
      );
    }
    const pageSize = numberOption('publishBatchSize', options.publishBatchSize, 100, {
      min: 1,
      max: 10_000,
      integer: true,
    });
    const publishTimeout = numberOption('publishTimeout', options.publishTimeout, 30_000, { min: 1, max: DAY });
    const concurrency = numberOption('concurrency', options.concurrency, 10, { min: 1, max: 1_000, integer: true });
    const minDelay = numberOption('retry.minDelay', retry.minDelay, 500, { min: 1, max: DAY });
    this.#cleanUp =
      options.cleanUp === undefined
        ? undefined
        : numberOption('cleanUp', options.cleanUp, 0, { min: 0, max: Number.MAX_SAFE_INTEGER });
    this.#options = {
      store: isFeedStore(store) ? store : oneAtATime(store),
      ...batchForm(publisher, concurrency, publishTimeout, pageSize),
      destination,
      pageSize,
      interval: numberOption('interval', options.interval, 1_000, { min: 1, max: DAY }),
      storeOutageLimit: numberOption('storeOutageLimit', options.storeOutageLimit, 30_000, {
        min: 0,
        max: Number.MAX_SAFE_INTEGER,
      }),
      retry: {
        minDelay,
        maxDelay: numberOption('retry.maxDelay', retry.maxDelay, Math.max(minDelay, 300_000), {
          min: minDelay,
          max: DAY,
        }),
      },
      errorLogger: safeLogger(errorLogger),
      betweenPages: (signal) => this.#cleanIfDue(signal),
    };
  }

  /**
   * Publishes once: what is due of the messages that failed before, and one page of new ones.
   *
   * @returns how many messages the broker acknowledged; 0 also while another relay holds the destination.
   * @throws PublishError when some were not, after the rest is settled: its `cause` is an `AggregateError`
   *   with an error for each. Otherwise the store's own errors.
   */
  async publish({ signal }: MessengerCallOptions = {}): Promise<number> {
    const { store, destination, pageSize, publisher, publishTimeout, retry } = this.#options;
    const feed = await openFeed(store, { destination, pageSize, signal });
    if (feed === null) return 0;
    const failures: PublishError[] = [];
    // A pause for a broker that is down belongs to `start`: here it ends the work.
    const stop = new AbortController();
    const onAbort = () => {
      stop.abort();
    };
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener('abort', onAbort, { once: true });
    let acknowledged = 0;
    try {
      for (const next of [() => feed.retries({ signal }), () => feed.read({ signal })]) {
        const page = await next();
        if (page.messages.length === 0 || stop.signal.aborted) continue;
        const outcome = await publishPage(page, {
          publisher,
          isSetAside: (key) => feed.isSetAside(key),
          timeout: publishTimeout,
          retry,
          wholeBatchRetries: 0,
          lost: feed.lost,
          stop: stop.signal,
          onFailure: (error) => {
            failures.push(error);
            if (error.kind === 'connection') stop.abort();
          },
        });
        if (hasChanged(outcome)) await feed.settle(page, [...outcome.setAside, ...outcome.untried]);
        acknowledged += outcome.acknowledged;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      await feed.close();
    }
    const [first] = failures;
    if (first) {
      throw new PublishError(
        `${String(acknowledged)} messages were published, with ${String(failures.length)} failures: ${first.message}`,
        { kind: first.kind, cause: new AggregateError(failures) },
      );
    }
    return acknowledged;
  }

  /**
   * Cleans once, by the option `cleanUp`.
   *
   * @throws MessengerError `INVALID_OPTION` when that option was not given; otherwise the store's own errors.
   */
  async clean({ signal }: MessengerCallOptions = {}): Promise<void> {
    if (this.#cleanUp === undefined) {
      throw new MessengerError(
        'INVALID_OPTION',
        'clean() needs the option cleanUp: how old, in milliseconds, a published message has to be',
      );
    }
    await this.#options.store.deletePublishedByExpiration(this.#cleanUp, { signal });
  }

  /**
   * Publishes, and cleans, until the signal aborts and what is in flight is settled. Errors of the
   * broker and short outages of the store go to the error logger.
   *
   * @throws FatalError when the store can not be reached at start, or for longer than `storeOutageLimit`,
   *   or when its tables are missing or not what this library can work on.
   */
  async start({ signal }: MessengerCallOptions = {}): Promise<void> {
    await runRelay({ ...this.#options, relay: uuidv7() }, signal ?? new AbortController().signal);
  }

  async #cleanIfDue(signal: AbortSignal): Promise<void> {
    if (this.#cleanUp === undefined) return;
    const { interval, errorLogger } = this.#options;
    // Cleaning costs some look-ups even when there is nothing to do, and a message may stay a little longer.
    const every = Math.max(interval, Math.min(60_000, this.#cleanUp / 10));
    if (performance.now() - this.#cleanedAt < every) return;
    this.#cleanedAt = performance.now();
    try {
      await this.clean({ signal });
    } catch (error) {
      // A `cleanUp` that the store can not do is a mistake to be told at once, not every minute.
      if (error instanceof MessengerError && error.code === 'INVALID_OPTION') throw error;
      if (!signal.aborted) errorLogger.error(toError(error));
    }
  }
}

/** The publisher's own batch form, or one message at a time within a key, each with a deadline of its own. */
function batchForm(
  publisher: Publisher,
  concurrency: number,
  publishTimeout: number,
  pageSize: number,
): { publisher: BatchPublisher; publishTimeout: number } {
  if (isBatchPublisher(publisher)) return { publisher, publishTimeout };
  const tooLate = () =>
    new PublishError(`the publisher did not answer within ${String(publishTimeout)} ms`, { kind: 'retryable' });
  const bounded: Publisher = {
    publish: (message, options) =>
      withDeadline(publishTimeout, options?.signal, tooLate, async (signal) => publisher.publish(message, { signal })),
  };
  // A whole page may be of one key, and then takes as long as its messages together.
  return {
    publisher: asBatchPublisher(bounded, concurrency),
    publishTimeout: Math.min(publishTimeout * (pageSize + 1), MAX_TIMEOUT),
  };
}

function assertMethods(value: unknown, option: string, ...methods: readonly string[]): void {
  const missing = methods.filter(
    (method) => typeof (value as Record<string, unknown> | null | undefined)?.[method] !== 'function',
  );
  if (missing.length > 0) {
    throw new MessengerError(
      'INVALID_OPTION',
      `${option} must have the methods ${methods.join(', ')}; ${missing.join(', ')} is missing in ${describe(value)}`,
    );
  }
}

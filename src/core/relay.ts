import { FatalError, MessengerError, toError } from './errors.js';
import type { Feed, Page } from './feed.js';
import type { ErrorLogger } from './logger.js';
import { openFeed } from './plain-feed.js';
import { publishPage, type PageOutcome } from './publish-page.js';
import type { BatchPublisher } from './publisher.js';
import { backoff, type Backoff } from './retry.js';
import type { Store } from './store.js';
import { sleep } from './wait.js';

/** Everything a relay works with. Durations in milliseconds. */
export interface RelayOptions {
  readonly store: Store;
  readonly publisher: BatchPublisher;
  readonly destination: string;
  /** What it is known by to the other relays of its destination: see `FeedOptions`. */
  readonly relay: string;
  readonly pageSize: number;
  readonly interval: number;
  readonly publishTimeout: number;
  readonly storeOutageLimit: number;
  readonly retry: Backoff;
  readonly errorLogger: ErrorLogger;
  /** Called between pages, to clean. */
  readonly betweenPages: (signal: AbortSignal) => Promise<void>;
}

/** The first pause of an idle relay; each further one is twice as long, up to the interval. Milliseconds. */
const FIRST_IDLE_PAUSE = 2;

/** How long one that stands by waits before it asks again: also by asking do the others know of it. Milliseconds. */
const LONGEST_STANDBY = 1_000;

/** How long a message that became due may wait to be noticed. Milliseconds. */
const MAX_RETRY_LOOK = 1_000;

/**
 * How often a batch that failed as a whole is tried again as such: long enough for a broker to restart,
 * and bounded, so that messages which only together fail alike can not stop the rest for ever.
 */
const WHOLE_BATCH_RETRIES = 5;

/** How fast a relay comes back to a store that failed. */
const STORE_BACKOFF: Backoff = { minDelay: 50, maxDelay: 2_000 };

/**
 * Relays until the signal aborts, then finishes what is in flight.
 *
 * @throws FatalError when the store can not be reached at start, or for longer than `storeOutageLimit`,
 *   or its schema is not what this library works on.
 */
export async function runRelay(options: RelayOptions, stop: AbortSignal): Promise<void> {
  const { store, destination, relay, pageSize, interval, storeOutageLimit, errorLogger } = options;
  /** How the store does. It is failing since the first failure after it last did what was asked of it. */
  const health: { reached: boolean; failures: number; failingSince: number | undefined } = {
    reached: false,
    failures: 0,
    failingSince: undefined,
  };
  const onReached = () => {
    health.reached = true;
  };
  const onWorking = () => {
    onReached();
    health.failures = 0;
    health.failingSince = undefined;
  };
  while (!stop.aborted) {
    try {
      const feed = await openFeed(store, { destination, relay, pageSize, signal: stop });
      if (feed === null) {
        onWorking();
        await sleep(Math.min(interval, LONGEST_STANDBY), stop);
        continue;
      }
      try {
        await relayFeed(feed, options, stop, { onReached, onWorking });
      } finally {
        await feed.close();
      }
    } catch (error) {
      if (hasAborted(stop)) {
        // What was acknowledged and could not be settled is published again, which somebody should know.
        if (!isAbort(error, stop)) errorLogger.error(toError(error));
        return;
      }
      health.failures += 1;
      health.failingSince ??= performance.now();
      const outage = performance.now() - health.failingSince;
      if (isUnworkable(error))
        throw new FatalError(`the datastore can not be worked on: ${toError(error).message}`, { cause: error });
      if (!health.reached && !isLeaseLost(error))
        throw new FatalError(`the datastore can not be reached: ${toError(error).message}`, { cause: error });
      if (outage >= storeOutageLimit && !isLeaseLost(error)) {
        throw new FatalError(
          `the datastore has not answered for ${String(Math.round(outage))} ms (limit ${String(storeOutageLimit)} ms): ${toError(error).message}`,
          { cause: error },
        );
      }
      errorLogger.error(toError(error));
      await sleep(backoff(health.failures, STORE_BACKOFF), stop);
    }
  }
}

/** What a feed tells of its store. */
interface StoreHealth {
  /** It answered. */
  readonly onReached: () => void;
  /** It did all that was asked of it: one that lists messages and can not mark them does not work. */
  readonly onWorking: () => void;
}

async function relayFeed(feed: Feed, options: RelayOptions, stop: AbortSignal, health: StoreHealth): Promise<void> {
  const { interval } = options;
  const publish = (page: Page) =>
    publishPage(page, {
      publisher: options.publisher,
      isSetAside: (key) => feed.isSetAside(key),
      timeout: options.publishTimeout,
      retry: options.retry,
      wholeBatchRetries: WHOLE_BATCH_RETRIES,
      lost: feed.lost,
      stop,
      onFailure: (error) => {
        options.errorLogger.error(error);
      },
    });
  const settle = async (page: Page, outcome: PageOutcome) => {
    await feed.settle(page, [...outcome.setAside, ...outcome.untried]);
    health.onWorking();
  };
  /** The settlement of the page before, while the next one is being published. */
  let settling: Promise<void> = Promise.resolve();
  let lookForRetries = 0;
  let pause = FIRST_IDLE_PAUSE;
  try {
    while (!stop.aborted) {
      feed.lost.throwIfAborted();
      await options.betweenPages(stop);
      let worked = false;
      if (feed.unbalanced) {
        await settling;
        await feed.rebalance({ signal: stop });
      }

      if (performance.now() >= lookForRetries) {
        // Settled before anything else is published: what is new of a key must not pass what was set aside.
        await settling;
        const page = await feed.retries({ signal: stop });
        const outcome = await publish(page);
        if (hasChanged(outcome)) await settle(page, outcome);
        worked = outcome.acknowledged > 0;
        // While keys drain, again at once.
        lookForRetries = worked ? 0 : performance.now() + Math.min(interval, MAX_RETRY_LOOK);
      }

      const page = await feed.read({ signal: stop });
      health.onReached();
      if (page.messages.length > 0) {
        worked = true;
        const outcome = await publish(page);
        // One after the other: a later one that overtook an earlier one, or survived it, would settle what it left.
        await settling;
        if (hasChanged(outcome)) settling = settle(page, outcome);
        settling.catch(() => undefined);
      }

      if (worked) {
        pause = FIRST_IDLE_PAUSE;
        continue;
      }
      await settling;
      health.onWorking();
      await feed.idle(Math.min(pause, interval), { signal: stop });
      pause *= 2;
    }
  } finally {
    await settling;
  }
}

/** Whether there is anything to settle: a page of which nothing was tried stays as it was. */
export function hasChanged({ acknowledged, setAside }: PageOutcome): boolean {
  return acknowledged > 0 || setAside.length > 0;
}

/** Asked anew: the type checker believes a signal to stay as it was when last looked at. */
function hasAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

function isUnworkable(error: unknown): boolean {
  return error instanceof MessengerError && (error.code === 'SCHEMA_MISMATCH' || error.code === 'INVALID_OPTION');
}

function isLeaseLost(error: unknown): boolean {
  return error instanceof MessengerError && error.code === 'LEASE_LOST';
}

/** Whether an error is no more than the answer to the abort. */
function isAbort(error: unknown, { reason }: AbortSignal): boolean {
  for (let each = error; each !== undefined; each = each instanceof Error ? each.cause : undefined) {
    if (each === reason) return true;
  }
  return false;
}

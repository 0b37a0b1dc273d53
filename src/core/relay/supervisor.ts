import { cleanBeside } from './cleanup.js';
import { durationOf, textOf } from '../util/error-text.js';
import { FatalError, hasCode, MessengerError, toError } from '../errors.js';
import type { Feed } from '../contracts/feed.js';
import { openFeed } from './open-feed.js';
import { relayFeed } from './loop.js';
import type { RelayOptions } from './settings.js';
import { backoff, type Backoff } from '../publish/retry-policy.js';
import { stoppingOf } from './stopping.js';
import { isAbort, isAborted, onAbort, sleepBy, type Cut } from '../util/async.js';

/**
 * How long a relay on standby waits before it asks for a feed again. These requests also show the other relays that it
 * exists. Milliseconds.
 */
const LONGEST_STANDBY = 1_000;

/** How soon a relay tries a store again after a failure. Milliseconds. */
const STORE_BACKOFF: Backoff = { minDelay: 50, maxDelay: 2_000 };

/**
 * Publishes until the signal aborts. Then finishes the work in flight, if it is answered in time.
 *
 * @throws FatalError if the store cannot be reached at start, or for longer than `storeOutageLimit`, or if this library
 *   cannot use its schema.
 */
export async function runRelay(options: RelayOptions, stop: AbortSignal, onStarted?: () => void): Promise<void> {
  const stopping = stoppingOf(stop, options.stopTimeout, options.clock);
  const work = relayUntil(options, stop, stopping.cut, onStarted);
  const giveUp = stopping.overdue.then(() => {
    // Ignore any later error. The relay's lease expires by itself.
    work.catch(() => undefined);
    const lasted = durationOf(options.stopTimeout);
    const text = `the relay was stopped, but is still not done long after its stopTimeout of ${lasted}`;
    options.errorLogger.error(
      new MessengerError(
        'TIMEOUT',
        `${text}: the datastore does not answer, so messages that were not settled will be published again`,
      ),
    );
  });
  try {
    await Promise.race([work, giveUp]);
  } finally {
    stopping.end();
  }
}

async function relayUntil(
  options: RelayOptions,
  stop: AbortSignal,
  cut: Cut,
  onStarted: (() => void) | undefined,
): Promise<void> {
  /** Aborts when the relay has to stop, or when it ends because it cannot clean. */
  const over = new AbortController();
  const onStop = () => {
    over.abort(stop.reason);
  };
  const forget = onAbort(stop, onStop);
  if (stop.aborted) onStop();
  const state: RelayState = { feed: undefined, reached: false, onStarted };
  let cleaning: Promise<void> | undefined;
  let unclean: { readonly error: unknown } | undefined;
  const onOpened = () => {
    cleaning ??= cleanBeside(options, () => state.feed !== undefined, over.signal).catch((error: unknown) => {
      unclean = { error };
      over.abort();
    });
  };
  try {
    await relayFeeds(options, { signal: over.signal, cut }, state, onOpened);
  } finally {
    over.abort();
    await cleaning;
    forget();
  }
  if (unclean !== undefined) throw unworkable(unclean.error);
}

interface RelayState {
  /** The relay's open feed. */
  feed: Feed | undefined;
  /** Whether the store has ever answered. */
  reached: boolean;
  /** Called once the store has answered. */
  readonly onStarted: (() => void) | undefined;
}

/** Opens one feed after the other, and publishes the messages from each. */
async function relayFeeds(
  options: RelayOptions,
  end: { readonly signal: AbortSignal; readonly cut: Cut },
  state: RelayState,
  onOpened: () => void,
): Promise<void> {
  const { store, destination, relay, pageSize, interval, storeOutageLimit, errorLogger, clock, alike, outages } =
    options;
  const stop = end.signal;
  /**
   * How many times the store has failed since it last worked. `failingSince` is the time of the first of these
   * failures.
   */
  let failures = 0;
  let failingSince: number | undefined;
  const onReached = () => {
    if (!state.reached) state.onStarted?.();
    state.reached = true;
  };
  const onWorking = () => {
    onReached();
    failures = 0;
    failingSince = undefined;
    outages.over();
  };
  while (!stop.aborted) {
    try {
      const tell = (error: Error) => {
        errorLogger.error(error);
      };
      const feed = await openFeed(store, { destination, relay, pageSize, tell, signal: stop }, clock);
      if (feed === null) {
        onWorking();
        await sleepBy(clock, Math.min(interval, LONGEST_STANDBY), stop);
        continue;
      }
      state.feed = feed;
      await holding(feed, options, stop, async () => {
        onOpened();
        await relayFeed(feed, options, end, { onReached, onWorking });
      }).finally(() => {
        state.feed = undefined;
      });
    } catch (thrown) {
      const error = failureOf(thrown);
      if (isAborted(stop)) {
        // Log the error, because messages that were acknowledged but could not be settled will be published again.
        if (!isAbort(error, stop)) errorLogger.error(toError(error));
        return;
      }
      failures += 1;
      failingSince ??= clock.now();
      const outage = clock.now() - failingSince;
      if (isUnworkable(error)) throw unworkable(error);
      // While the relay is running, an operator can fix this. At start, it is a configuration error.
      if (!state.reached && hasCode(error, 'NOT_ALLOWED', 'UNSUPPORTED', 'UNKNOWN_DESTINATION'))
        throw unworkable(error);
      if (!state.reached && !isLeaseLost(error))
        throw new FatalError(`the datastore cannot be reached: ${textOf(error)}`, { cause: error });
      if (outage >= storeOutageLimit && !isLeaseLost(error)) {
        throw new FatalError(
          `the datastore has not answered for ${String(Math.round(outage))} ms (limit ${String(storeOutageLimit)} ms): ${textOf(error)}`,
          { cause: error },
        );
      }
      const retryIn = backoff(failures, STORE_BACKOFF, clock);
      // Another relay has taken the lease. The store has not failed.
      if (isLeaseLost(error)) alike.tellError(toError(error));
      else outages.failed(toError(error), retryIn);
      await sleepBy(clock, retryIn, stop);
    }
  }
}

/** Runs `work` with a feed, closes the feed afterwards, and emits events for the partitions that it held. */
async function holding(
  feed: Feed,
  { onEvent, destination }: RelayOptions,
  stop: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  if (feed.partitions.length > 0) onEvent?.({ type: 'leased', destination, partitions: feed.partitions });
  let failure: { readonly error: Error } | undefined;
  try {
    await work();
  } catch (error) {
    failure = { error: toError(error) };
    throw error;
  } finally {
    const { partitions } = feed;
    await feed.close({ stays: !stop.aborted });
    if (partitions.length > 0) onEvent?.({ type: 'lease-lost', destination, partitions, ...failure });
  }
}

function unworkable(error: unknown): FatalError {
  return new FatalError(`the datastore cannot be used: ${textOf(error)}`, { cause: error });
}

function isUnworkable(error: unknown): boolean {
  return hasCode(error, 'SCHEMA_MISMATCH', 'INVALID_OPTION', 'DESTINATION_FORGOTTEN');
}

/**
 * Returns the error that caused a failure. If the store's own error caused the loss of a lease, returns the store's
 * error, because then no other relay has taken the lease.
 */
function failureOf(thrown: unknown): unknown {
  return isLeaseLost(thrown) ? ((thrown as Error).cause ?? thrown) : thrown;
}

function isLeaseLost(error: unknown): boolean {
  return hasCode(error, 'LEASE_LOST');
}

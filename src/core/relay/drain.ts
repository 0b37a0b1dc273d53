import { cleanOnce } from './cleanup.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import type { Feed } from '../contracts/feed.js';
import type { OutboxRelayOptions } from './handle.js';
import { isBrokerDown, newRound, publishRound, roundError, withFeed } from './round.js';
import type { RelaySettings } from './settings.js';
import { onAbort } from '../util/async.js';

/** How a drain is limited. */
export interface DrainOptions extends Omit<OutboxRelayOptions, 'interval'> {
  /**
   * Sends nothing more after so many milliseconds, whatever is left: what was sent is waited for, up to
   * `stopTimeout`, and settled; with `cleanUp` it can take one cleaning more. @default 10_000
   */
  readonly budget?: number;
  /** Sends nothing more once it aborts, and does not clean: resolves to what was published by then. */
  readonly signal?: AbortSignal | undefined;
}

/** Publishes until there is nothing new, the broker as a whole fails, or the time is over; then cleans, if it is to. */
export async function drained(settings: RelaySettings, budget: number, signal?: AbortSignal): Promise<number> {
  const { clock, cleanUp } = settings;
  /** Aborted when the time is over, or all of it is to end. */
  const over = new AbortController();
  const end = () => {
    over.abort(signal?.reason);
  };
  const cancel = clock.setTimeout(end, budget);
  const forget = signal && onAbort(signal, end);
  if (signal?.aborted === true) end();
  const until = clock.now() + budget;
  const drain: Drain = { settings, signal: over.signal, isOver: () => over.signal.aborted || clock.now() >= until };
  const done: Done = { total: 0, failures: [], parked: new Set() };
  try {
    let isMore = true;
    while (isMore && !drain.isOver()) {
      isMore = (await withFeed(settings, over.signal, (feed) => drainFeed(feed, drain, done))) ?? false;
    }
  } finally {
    cancel();
    forget?.();
  }
  if (cleanUp !== undefined && signal?.aborted !== true) await cleanOnce(settings, cleanUp, signal);
  const [first] = done.failures;
  if (first === undefined) return done.total;
  throw new PublishError(`${String(done.total)} messages were published, and some were not: ${textOf(first)}`, {
    kind: first.kind,
    cause: new AggregateError(done.failures),
  });
}

interface Drain {
  readonly settings: RelaySettings;
  readonly signal: AbortSignal;
  /** By the clock as well: a process that was frozen gets here before its timers. */
  readonly isOver: () => boolean;
}

/**
 * How long a drain keeps one feed, in milliseconds. Then it gives its partitions back and takes what is free: relays that
 * wait get their turn, as does what a relay that died has held.
 */
const ONE_FEED = 10_000;

/** What a drain has come to. */
interface Done {
  total: number;
  /** One for each round that had some. */
  readonly failures: PublishError[];
  readonly parked: Set<string>;
}

/** Publishes round after round. @returns whether there may be more, for another feed: this one is lost, or had its time. */
async function drainFeed(feed: Feed, { settings, signal, isOver }: Drain, done: Done): Promise<boolean> {
  const until = settings.clock.now() + ONE_FEED;
  do {
    const round = newRound(done.parked);
    try {
      await publishRound(feed, settings, round, signal);
    } finally {
      done.total += round.acknowledged;
      const error = roundError(round);
      if (error !== undefined) done.failures.push(error);
    }
    if (!round.isNew || isBrokerDown(round)) return false;
  } while (!isOver() && !feed.lost.aborted && settings.clock.now() < until);
  return true;
}

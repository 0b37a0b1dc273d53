import { cleanOnce } from './cleanup.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import type { Feed } from '../contracts/feed.js';
import type { OutboxRelayOptions } from './handle.js';
import { isBrokerDown, newRound, publishRound, roundError, withFeed } from './round.js';
import type { RelaySettings } from './settings.js';
import { onAbort } from '../util/async.js';

/** The options of a drain. */
export interface DrainOptions extends Omit<OutboxRelayOptions, 'interval'> {
  /**
   * How many milliseconds the drain can spend on sending messages. After that, it sends nothing more, even if messages
   * are left. It waits up to `stopTimeout` for messages in flight, and settles them. If `cleanUp` is set, the cleaning
   * takes additional time.
   * @default 10_000
   */
  readonly budget?: number;
  /**
   * Once this signal aborts, the drain sends nothing more and does not clean. It resolves to the number of messages
   * that were published by then.
   */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Publishes until there are no new messages, there is a broker outage, or the budget is used up. Then cleans, if
 * `cleanUp` is set.
 */
export async function drained(settings: RelaySettings, budget: number, signal?: AbortSignal): Promise<number> {
  const { clock, cleanUp } = settings;
  /** Aborts when the budget is used up, or when `signal` aborts. */
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
  throw new PublishError(`${String(done.total)} messages were published, but others failed: ${textOf(first)}`, {
    kind: first.kind,
    cause: new AggregateError(done.failures),
  });
}

interface Drain {
  readonly settings: RelaySettings;
  readonly signal: AbortSignal;
  /** Also checks the clock, because a process that was frozen can get here before its timers run. */
  readonly isOver: () => boolean;
}

/**
 * How long a drain keeps one feed, in milliseconds. After that, it releases its partitions and takes free ones. So
 * waiting relays get their turn, and the drain also gets partitions that were held by a dead relay.
 */
const ONE_FEED = 10_000;

/** The results of a drain so far. */
interface Done {
  total: number;
  /** One error for each round with failures. */
  readonly failures: PublishError[];
  readonly parked: Set<string>;
}

/**
 * Publishes round after round.
 * @returns whether another feed may find more messages, because the lease for this feed is lost or its time is over.
 */
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

import { durationOf } from '../util/error-text.js';
import { MessengerError, PublishError } from '../errors.js';
import { eventOf } from '../contracts/events.js';
import type { Feed, Page } from '../contracts/feed.js';
import { Pipeline } from './pipeline.js';
import { signatureOf } from '../util/error-signature.js';
import type { RelayOptions } from './settings.js';
import { isAbort, isAborted, type Cut } from '../util/async.js';

/** The first pause of an idle relay; each further one is twice as long, up to the interval. Milliseconds. */
const FIRST_IDLE_PAUSE = 2;

/** How long a message that became due may wait to be noticed. Milliseconds. */
const MAX_RETRY_LOOK = 1_000;

/** How often a relay that is busy looks whether others have come or gone. Milliseconds. */
const GIVE_WAY = 250;

/**
 * How often what failed alike is tried again as such: long enough for a broker to restart, and bounded,
 * so that messages which fail alike by themselves cannot stop the rest for ever.
 */
const PROBES = 5;

/** How far the messages that wait must have drained, of `maxParked`, before new ones are published again. */
const DRAINED = 0.9;

/** What a feed tells of its store. */
export interface StoreHealth {
  /** It answered. */
  readonly onReached: () => void;
  /** It did all that was asked of it: one that lists messages and cannot mark them does not work. */
  readonly onWorking: () => void;
}

/**
 * Publishes what a feed has, new messages and beside them those that were parked, until it is told to
 * stop, or until it is better to open another one. What is in flight is settled then.
 *
 * @throws what the feed rejected with, and the reason for which its lease is lost.
 */
export async function relayFeed(
  feed: Feed,
  options: RelayOptions,
  { signal: stop, cut }: { readonly signal: AbortSignal; readonly cut: Cut },
  health: StoreHealth,
): Promise<void> {
  const { clock, interval, destination, circuit, onEvent, policyOf, alike } = options;
  let unanswered = 0;
  const pipeline = new Pipeline({
    feed,
    pageSize: options.pageSize,
    depth: options.pipelineDepth,
    stop,
    publishing: {
      publisher: options.publisher,
      timeout: options.publishTimeout,
      batchBytes: options.batchBytes,
      policyOf,
      kindOf: options.kindOf,
      circuit,
      outageDetector: options.outageDetector,
      pace: options.pace,
      probes: PROBES,
      clock,
      cut,
      onCut: (messages) => (unanswered += messages),
      ...(!options.watchesCalls && { calls: options.calls }),
      onFailure: (error, attempt, isLast) => {
        if (isLast) options.errorLogger.error(error);
        else {
          alike.tell(signatureOf(attempt.error, attempt.kind), (more) =>
            more === ''
              ? error
              : new PublishError(`${error.message}${more}`, { kind: attempt.kind, cause: attempt.error }),
          );
        }
        onEvent?.({ type: 'failed', destination, ...attempt });
      },
      onPublished: onEvent && ((messages, duration) => onEvent({ type: 'published', destination, messages, duration })),
    },
    onSettled: (toPark) => {
      health.onWorking();
      if (onEvent !== undefined) for (const each of toPark) onEvent(eventOf(each, destination));
    },
  });

  let unbalancedSince: number | undefined;
  /**
   * Whether partitions are to change hands now. That waits for every call: not while a slow one is waited for, so that it
   * holds up nothing else, unless there is another and another for as long as one may take.
   */
  function isToHandOver(): boolean {
    if (pipeline.round.aborted) return true;
    if (!feed.unbalanced) {
      unbalancedSince = undefined;
      return false;
    }
    unbalancedSince ??= clock.now();
    return !pipeline.isLate || clock.now() - unbalancedSince >= options.pace.timeout;
  }

  /** Takes what is new, page by page. */
  async function publishNew(): Promise<void> {
    let pause = FIRST_IDLE_PAUSE;
    while (!pipeline.over.aborted) {
      feed.lost.throwIfAborted();
      if (isToHandOver()) {
        await pipeline.handOver(() => rebalance(feed, options, pipeline.over));
        if (isAborted(pipeline.over)) return;
      }
      const { round } = pipeline;
      const page = await feed.read({ signal: pipeline.over });
      health.onReached();
      if (page.messages.length > 0) {
        pause = FIRST_IDLE_PAUSE;
        onEvent?.({ type: 'claimed', destination, messages: page.messages, retries: false });
        // If not, it is dropped: whoever holds its partitions then reads it again.
        if (await enter(page, round)) pipeline.publish(page);
      } else {
        if (pipeline.isIdle) health.onWorking();
        // A feed does not sleep while it is unbalanced.
        if (feed.unbalanced) await pipeline.sleep(Math.min(pause, interval));
        else await feed.idle(Math.min(pause, interval), { interval, signal: round });
        pause *= 2;
      }
    }
  }

  /** Waits for room for a page, and for messages that wait to drain. @returns whether it may be published. */
  async function enter(page: Page, round: AbortSignal): Promise<boolean> {
    for (;;) {
      if (!(await pipeline.enter(round))) return false;
      const full = fullTopic(feed, page, policyOf);
      if (full === undefined) return true;
      pipeline.leave();
      circuit.hold(full.error);
      try {
        while (feed.waiting(full.topic) > full.limit * DRAINED) {
          if (round.aborted) return false;
          feed.lost.throwIfAborted();
          await pipeline.settled.wait(clock, Math.min(interval, MAX_RETRY_LOOK), round, feed.lost);
        }
      } finally {
        circuit.release();
      }
    }
  }

  /** Takes what was parked and is due: again at once while keys drain. */
  async function publishAgain(): Promise<void> {
    while (await pipeline.enter()) {
      const { round } = pipeline;
      let page: Page;
      try {
        feed.lost.throwIfAborted();
        page = await pipeline.retries();
      } catch (error) {
        pipeline.leave();
        if (isAbort(error, round)) continue;
        throw error;
      }
      let acknowledged = 0;
      if (page.messages.length === 0) pipeline.leave();
      else {
        onEvent?.({ type: 'claimed', destination, messages: page.messages, retries: true });
        acknowledged = await pipeline.publishRetries(page);
      }
      if (acknowledged === 0) await pipeline.sleep(Math.min(interval, MAX_RETRY_LOOK));
    }
  }

  /** Makes room for others also while new messages wait: for their turn, for a broker, or for others to drain. */
  async function giveWay(): Promise<void> {
    while (!pipeline.over.aborted) {
      await pipeline.sleep(GIVE_WAY);
      feed.lost.throwIfAborted();
      if (isToHandOver()) pipeline.endRound();
    }
  }

  const orFail = (error: unknown) => {
    // A call that was cut short, since all is over, has not failed.
    if (isAbort(error, pipeline.over)) return;
    // Of a process that was frozen, any call may be the first that fails.
    pipeline.fail(feed.lost.aborted ? feed.lost.reason : error);
  };
  await Promise.all([publishAgain, publishNew, giveWay].map((work) => work().catch(orFail)));
  try {
    await pipeline.end();
  } finally {
    if (unanswered > 0) {
      const text = `the relay was stopped, and the publisher had not answered after ${durationOf(options.stopTimeout)}`;
      options.errorLogger.error(
        new MessengerError('TIMEOUT', `${text}: messages that are published again: ${String(unanswered)}`),
      );
    }
  }
}

async function rebalance(feed: Feed, { onEvent, destination }: RelayOptions, signal: AbortSignal): Promise<void> {
  const before = feed.partitions;
  await feed.rebalance({ signal });
  const after = feed.partitions;
  const gained = after.filter((partition) => !before.includes(partition));
  const lost = before.filter((partition) => !after.includes(partition));
  if (lost.length > 0) onEvent?.({ type: 'lease-lost', destination, partitions: lost });
  if (gained.length > 0) onEvent?.({ type: 'leased', destination, partitions: gained });
}

/** The first topic of a page of which as many messages wait as may. */
function fullTopic(
  feed: Feed,
  { messages }: Page,
  policyOf: RelayOptions['policyOf'],
): { topic: string | undefined; limit: number; error: Error } | undefined {
  const seen = new Set<string | undefined>();
  let last: string | undefined | null = null;
  for (const { topic } of messages) {
    if (topic === last || seen.has(topic)) continue;
    last = topic;
    seen.add(topic);
    const { maxParked: limit } = policyOf(topic);
    const waiting = feed.waiting(topic);
    if (waiting < limit) continue;
    const of = topic === undefined ? 'without a topic' : `of topic ${JSON.stringify(topic)}`;
    const text = `${String(waiting)} messages ${of} wait to be tried again (maxParked ${String(limit)})`;
    return {
      topic,
      limit,
      error: new MessengerError('PARKING_LIMIT', `${text}: nothing new is published until they drain`),
    };
  }
  return undefined;
}

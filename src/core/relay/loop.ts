import { durationOf } from '../util/error-text.js';
import { MessengerError, PublishError } from '../errors.js';
import { eventOf } from '../contracts/events.js';
import type { Feed, Page } from '../contracts/feed.js';
import { Pipeline } from './pipeline.js';
import { signatureOf } from '../util/error-signature.js';
import type { RelayOptions } from './settings.js';
import { isAbort, isAborted, type Cut } from '../util/async.js';

/** The first pause of an idle relay. Each further pause is twice as long, up to the interval. Milliseconds. */
const FIRST_IDLE_PAUSE = 2;

/** The longest time before the relay notices that a parked message is due. Milliseconds. */
const MAX_RETRY_LOOK = 1_000;

/** The interval at which a busy relay checks whether other relays have started or stopped. Milliseconds. */
const GIVE_WAY = 250;

/**
 * How many times messages with similar failures are tried again, as in a broker outage. That gives a broker enough time
 * to restart. If the messages themselves cause the similar failures, this limit keeps them from stopping all other
 * messages forever.
 */
const PROBES = 5;

/**
 * The relay publishes new messages again once the number of waiting messages has fallen to this fraction of
 * `maxParked`.
 */
const DRAINED = 0.9;

/** Is notified of the store's health while a feed is in use. */
export interface StoreHealth {
  /** Called when the store has answered. */
  readonly onReached: () => void;
  /**
   * Called when the store has done everything that it was asked to do. A store that can list messages but not mark them
   * is not working.
   */
  readonly onWorking: () => void;
}

/**
 * Publishes a feed's messages, both new and parked ones, until the signal aborts or a call to the feed fails. Then it
 * waits for the messages in flight, and settles them if it can.
 *
 * @throws the feed's error, or the reason for the loss of its lease.
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
          const { error: cause, kind } = attempt;
          alike.tell(signatureOf(cause, kind), (more) => new PublishError(`${error.message}${more}`, { kind, cause }));
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
   * Whether partitions should change hands now. The handover has to wait for every call in flight. Therefore, it does
   * not begin while the pipeline is waiting for a slow call, which would delay everything else. But if the feed has
   * been unbalanced for as long as one call can take, the handover begins anyway.
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

  /** Publishes new messages, page by page. */
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
        // If the round has ended, drop the page. Whichever relay then holds its partitions reads it again.
        if (await enter(page, round)) pipeline.publish(page);
      } else {
        if (pipeline.isIdle) health.onWorking();
        // `idle` does not sleep while the feed is unbalanced.
        if (feed.unbalanced) await pipeline.sleep(Math.min(pause, interval));
        else await feed.idle(Math.min(pause, interval), { interval, signal: round });
        pause *= 2;
      }
    }
  }

  /**
   * Waits until there is room for a page, and until none of its topics has too many waiting messages.
   * @returns whether the page can be published.
   */
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

  /**
   * Publishes parked messages that are due. As long as messages are acknowledged, it looks for more without a pause.
   */
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

  /**
   * Makes room for other relays even while new messages are waiting for their turn, for the broker or for parked
   * messages.
   */
  async function giveWay(): Promise<void> {
    while (!pipeline.over.aborted) {
      await pipeline.sleep(GIVE_WAY);
      feed.lost.throwIfAborted();
      if (isToHandOver()) pipeline.endRound();
    }
  }

  const orFail = (error: unknown) => {
    // A call that was cut short because all work is ending has not failed.
    if (isAbort(error, pipeline.over)) return;
    // After a process was frozen, any call can be the first to fail because of the lost lease.
    pipeline.fail(feed.lost.aborted ? feed.lost.reason : error);
  };
  await Promise.all([publishAgain, publishNew, giveWay].map((work) => work().catch(orFail)));
  try {
    await pipeline.end();
  } finally {
    if (unanswered > 0) {
      const text = `the relay was stopped, but the publisher did not answer within ${durationOf(options.stopTimeout)}`;
      options.errorLogger.error(
        new MessengerError('TIMEOUT', `${text}: messages to be published again: ${String(unanswered)}`),
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

/** Returns the first topic in a page whose number of waiting messages has reached the topic's limit. */
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
      error: new MessengerError('PARKING_LIMIT', `${text}: no new messages are published until fewer wait`),
    };
  }
  return undefined;
}

import type { Gate } from '../publish/circuit-breaker.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import type { Feed, Page } from '../contracts/feed.js';
import { eventOf } from '../contracts/events.js';
import { openFeed } from './open-feed.js';
import { publishPage } from '../publish/page.js';
import { hasChanged, type PageOutcome, type PublishPageOptions } from '../publish/types.js';
import type { RelaySettings } from './settings.js';
import { stoppingOf } from './stopping.js';
import { Bell, isAbort, onAbort } from '../util/async.js';

/**
 * The results so far of one round of publishing from a feed. They are recorded during the round, so that they are not
 * lost if the round ends with an error.
 */
export interface Round {
  acknowledged: number;
  /** Whether the round has found a message that no earlier round parked. */
  isNew: boolean;
  readonly failures: PublishError[];
  /**
   * The ids of the messages that this round and earlier ones have parked. A store without a side table lists these
   * messages again.
   */
  readonly parked: Set<string>;
}

export function newRound(parked = new Set<string>()): Round {
  return { acknowledged: 0, isNew: false, failures: [], parked };
}

/** Whether there was a broker outage. In an outage, a running relay pauses, but a round ends. */
export function isBrokerDown({ failures }: Round): boolean {
  return failures.some(({ kind }) => kind === 'connection');
}

/** Returns one error for all failures in a round, or `undefined` if there were none. */
export function roundError({ acknowledged, failures }: Round): PublishError | undefined {
  const [first] = failures;
  if (first === undefined) return undefined;
  return new PublishError(
    `${String(acknowledged)} messages were published, with ${String(failures.length)} failures: ${first.message}`,
    { kind: first.kind, cause: new AggregateError(failures) },
  );
}

/**
 * Opens a feed, passes it to `work`, and closes it.
 *
 * @returns the result of `work`, or `undefined` if other relays hold the destination or the signal ended the work.
 */
export async function withFeed<T>(
  { store, destination, pageSize, clock }: RelaySettings,
  signal: AbortSignal | undefined,
  work: (feed: Feed) => Promise<T>,
): Promise<T | undefined> {
  try {
    const feed = await openFeed(store, { destination, pageSize, signal }, clock);
    return await (feed === null ? undefined : work(feed).finally(() => feed.close()));
  } catch (error) {
    // The signal ended the work while it was looking for more messages. That is not a failure, even if the store threw
    // an error.
    if (signal !== undefined && isAbort(error, signal)) return undefined;
    throw error;
  }
}

/** Publishes the due messages that failed before, and one page of new messages. */
export async function publishRound(
  feed: Feed,
  settings: RelaySettings,
  round: Round,
  signal: AbortSignal | undefined,
): Promise<void> {
  const retries = () => feed.retries({ signal });
  const pages = [retries, () => feed.read({ signal })];
  for (let next = pages.shift(); next !== undefined; next = pages.shift()) {
    const { toPark } = await publishNext(feed, await next(), settings, round, signal);
    if (isBrokerDown(round)) return;
    // Messages that waited behind a dead letter can be published now that the dead letter is settled.
    if (toPark.some(({ dead }) => dead) && pages.at(-1) !== retries) pages.push(retries);
  }
}

/**
 * Publishes and settles one page without waiting for a failing broker. After a connection failure, nothing more is
 * sent.
 */
async function publishNext(
  feed: Feed,
  page: Page,
  settings: RelaySettings,
  round: Round,
  signal: AbortSignal | undefined,
): Promise<Pick<PageOutcome, 'toPark'>> {
  const { destination, onEvent, stopTimeout, clock } = settings;
  if (page.messages.length === 0 || signal?.aborted === true) return { toPark: [] };
  round.isNew ||= page.messages.some(({ id }) => !round.parked.has(id));
  onEvent?.({ type: 'claimed', destination, messages: page.messages, retries: page.attempts !== undefined });
  const stop = new AbortController();
  const forget =
    signal &&
    onAbort(signal, () => {
      stop.abort(signal.reason);
    });
  const stopping = stoppingOf(stop.signal, stopTimeout, clock);
  try {
    const earlier = { isParked: (key: string) => feed.isParked(key), isBusy: () => false };
    const publishing: PublishPageOptions = {
      ...withoutPause(settings, round, stop),
      stop: stop.signal,
      cut: stopping.cut,
      get lost() {
        return feed.lost;
      },
    };
    const outcome = await publishPage(page, publishing, earlier).outcome;
    const { acknowledged, toPark, untried } = outcome;
    if (hasChanged(outcome)) await feed.settle(page, [...toPark, ...untried]);
    round.acknowledged += acknowledged;
    for (const each of toPark) {
      round.parked.add(each.message.id);
      onEvent?.(eventOf(each, destination));
    }
    return outcome;
  } finally {
    forget?.();
    stopping.end();
  }
}

/** Returns the options for publishing a page without immediate retries, and without waiting during a broker outage. */
function withoutPause(
  settings: RelaySettings,
  { failures }: Round,
  stop: AbortController,
): Omit<PublishPageOptions, 'stop' | 'lost'> {
  const { destination, onEvent } = settings;
  return {
    publisher: settings.publisher,
    timeout: settings.publishTimeout,
    batchBytes: settings.batchBytes,
    policyOf: settings.policyOf,
    kindOf: settings.kindOf,
    outageDetector: settings.outageDetector,
    clock: settings.clock,
    circuit: endingGate(stop, failures),
    probes: 0,
    progress: new Bell(),
    ...(!settings.watchesCalls && { calls: settings.calls }),
    onFailure: (error, attempt) => {
      failures.push(error);
      onEvent?.({ type: 'failed', destination, ...attempt });
    },
    onPublished: onEvent && ((messages, duration) => onEvent({ type: 'published', destination, messages, duration })),
  };
}

/** Returns a gate that lets all messages through until the connection fails. Then it stops the work. */
function endingGate(stop: AbortController, failures: PublishError[]): Gate {
  const pass = { probe: false, opened: 0 };
  return {
    signature: undefined,
    tryEnter: () => pass,
    enter: () => Promise.resolve(pass),
    leave(_, answer) {
      if (answer?.outage?.certain !== true) return;
      const { error } = answer.outage;
      failures.push(new PublishError(`publishing is paused: ${textOf(error)}`, { kind: 'connection', cause: error }));
      stop.abort();
    },
  };
}

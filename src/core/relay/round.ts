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

/** What one round over an open feed comes to, kept while it goes on: an error in the middle of it loses nothing. */
export interface Round {
  acknowledged: number;
  /** Whether it found a message that no round before it has parked. */
  isNew: boolean;
  readonly failures: PublishError[];
  /** Ids of the messages that this round and those before it have parked: a store without a side table lists them again. */
  readonly parked: Set<string>;
}

export function newRound(parked = new Set<string>()): Round {
  return { acknowledged: 0, isNew: false, failures: [], parked };
}

/** Whether the broker as a whole failed: a pause for it belongs to a relay that stays, here it ends the work. */
export function isBrokerDown({ failures }: Round): boolean {
  return failures.some(({ kind }) => kind === 'connection');
}

/** The one error of all failures of a round; `undefined` where there are none. */
export function roundError({ acknowledged, failures }: Round): PublishError | undefined {
  const [first] = failures;
  if (first === undefined) return undefined;
  return new PublishError(
    `${String(acknowledged)} messages were published, with ${String(failures.length)} failures: ${first.message}`,
    { kind: first.kind, cause: new AggregateError(failures) },
  );
}

/**
 * Opens a feed, works with it, and closes it.
 *
 * @returns `undefined` while another relay holds the destination, and where the signal ended the work.
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
    // It was told to end while it looked for more: that has not failed, whatever error the store makes of it.
    if (signal !== undefined && isAbort(error, signal)) return undefined;
    throw error;
  }
}

/** Publishes what is due of the messages that failed before, and one page of new ones. */
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
    // What waited behind a dead letter goes on, now that it is settled as one.
    if (toPark.some(({ dead }) => dead) && pages.length === 0) pages.push(retries);
  }
}

/** Publishes and settles one page without ever waiting for a broker that fails: a failure of the connection ends it. */
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

/** How a page is published where nothing is tried again at once, and nothing waits for a broker that is down. */
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

/** Lets everything through until the connection fails: that is the end. */
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

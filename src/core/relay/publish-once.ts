import type { Gate } from '../publish/circuit-breaker.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import type { Feed, Page } from '../contracts/feed.js';
import { eventOf } from '../contracts/events.js';
import { hasChanged } from './pipeline.js';
import { publishPage } from '../publish/page.js';
import type { PageOutcome, PublishPageOptions } from '../publish/types.js';
import type { RelayOptions } from './settings.js';
import { stoppingOf } from './stopping.js';
import { Bell, onAbort } from '../util/async.js';

/**
 * Publishes and settles one page without ever waiting for a broker that fails: a failure of the
 * connection ends it.
 *
 * @param failures Gets every failure.
 * @returns what became of it.
 */
export async function publishOnce(
  feed: Feed,
  next: () => Promise<Page>,
  options: Omit<RelayOptions, 'relay'>,
  failures: PublishError[],
  signal: AbortSignal | undefined,
): Promise<PageOutcome> {
  const { destination, onEvent } = options;
  const page = await next();
  if (page.messages.length === 0 || signal?.aborted === true)
    return { acknowledged: 0, setAside: [], untried: [], late: [] };
  onEvent?.({ type: 'claimed', destination, messages: page.messages, retries: page.attempts !== undefined });
  const stop = new AbortController();
  const forget =
    signal &&
    onAbort(signal, () => {
      stop.abort(signal.reason);
    });
  const stopping = stoppingOf(stop.signal, options.stopTimeout, options.clock);
  try {
    const earlier = { isSetAside: (key: string) => feed.isSetAside(key), isBusy: () => false };
    const publishing: PublishPageOptions = {
      publisher: options.publisher,
      timeout: options.publishTimeout,
      batchBytes: options.batchBytes,
      policyOf: options.policyOf,
      kindOf: options.kindOf,
      suspicion: options.suspicion,
      clock: options.clock,
      circuit: endingGate(stop, failures),
      probes: 0,
      progress: new Bell(),
      stop: stop.signal,
      cut: stopping.cut,
      ...(!options.watchesCalls && { calls: options.calls }),
      get lost() {
        return feed.lost;
      },
      onFailure: (error, attempt) => {
        failures.push(error);
        onEvent?.({ type: 'failed', destination, ...attempt });
      },
      onPublished: onEvent && ((messages, duration) => onEvent({ type: 'published', destination, messages, duration })),
    };
    const outcome = await publishPage(page, publishing, earlier).outcome;
    const { setAside, untried } = outcome;
    if (!hasChanged(outcome)) return outcome;
    await feed.settle(page, [...setAside, ...untried]);
    if (onEvent !== undefined) for (const each of setAside) onEvent(eventOf(each, destination));
    return outcome;
  } finally {
    forget?.();
    stopping.end();
  }
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

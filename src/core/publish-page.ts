import { systemClock, type Clock } from './clock.js';
import { failureKind, PublishError, toError } from './errors.js';
import type { Page, SetAside } from './feed.js';
import type { Message } from './message.js';
import type { BatchPublisher, PublishResult } from './publisher.js';
import { backoff, type Backoff } from './retry.js';
import { sleepBy, withDeadline } from './wait.js';

/** What publishing a page needs to know. */
export interface PublishPageOptions {
  readonly publisher: BatchPublisher;
  /** Whether an earlier message of this key was set aside, so that this one has to wait behind it. */
  readonly isSetAside: (key: string) => boolean;
  /** Milliseconds for one call of the publisher. */
  readonly timeout: number;
  readonly retry: Backoff;
  /** Aborted when the lease is lost: publishing stops at once, by rejecting. */
  readonly lost: AbortSignal;
  /** Aborted when the relay is to stop: what is in flight is waited for, and nothing more is sent. */
  readonly stop: AbortSignal;
  /**
   * How often a batch that failed as a whole, without saying that the connection is at fault, is tried
   * again before its messages are set aside one by one.
   */
  readonly wholeBatchRetries: number;
  /** @default the system's */
  readonly clock?: Clock;
  /** Told of every failure, once. */
  readonly onFailure: (error: PublishError) => void;
}

/** What became of a page: whatever is neither set aside nor untried was acknowledged. */
export interface PageOutcome {
  readonly acknowledged: number;
  readonly setAside: readonly SetAside[];
  /** Messages that were not sent, or of which nothing is known, when the relay was stopped. */
  readonly untried: readonly SetAside[];
}

/** The state of one page while it is published. A message is known by its place in the page. */
interface Work {
  readonly page: Page;
  readonly options: PublishPageOptions;
  readonly setAside: SetAside[];
  /** Keys of which a message of this page was set aside. */
  readonly blocked: Set<string>;
  acknowledged: number;
}

/**
 * Publishes a page: in order per key, each message until it is acknowledged, set aside, or dead.
 * While the broker as a whole fails, the page waits, and nobody's attempts are counted.
 *
 * @throws the reason of `lost`, and nothing else.
 */
export async function publishPage(page: Page, options: PublishPageOptions): Promise<PageOutcome> {
  const { clock = systemClock } = options;
  const work: Work = { page, options, setAside: [], blocked: new Set(), acknowledged: 0 };
  let pending = page.messages.map((_, place) => place);
  let outages = 0;
  while (pending.length > 0 && !options.stop.aborted) {
    const { batch, rest } = nextBatch(work, pending);
    if (batch.length === 0) {
      pending = rest;
      continue;
    }
    options.lost.throwIfAborted();
    const results = await send(work, batch);
    options.lost.throwIfAborted();
    const outage = outageIn(work, batch, results, outages);
    const again = settleResults(work, batch, results, outage !== undefined);
    pending = [...again, ...rest].sort((a, b) => a - b);
    if (outage === undefined) {
      outages = 0;
      continue;
    }
    outages += 1;
    options.onFailure(
      new PublishError(`publishing is paused: ${outage.message}`, { kind: 'connection', cause: outage }),
    );
    await sleepBy(clock, backoff(outages, options.retry, clock), options.stop, options.lost);
    options.lost.throwIfAborted();
  }
  const untried = pending.map((place) => setAsideOf(work, place, {}));
  return { acknowledged: work.acknowledged, setAside: work.setAside, untried };
}

/** What can be sent now: unless the publisher keeps the order of keys in a batch, one message of each. */
function nextBatch(work: Work, pending: readonly number[]): { batch: number[]; rest: number[] } {
  const { page, options, blocked } = work;
  const fromLog = page.attempts === undefined;
  const inBatch = options.publisher.batchKeepsKeyOrder === true ? undefined : new Set<string>();
  const batch: number[] = [];
  const rest: number[] = [];
  for (const place of pending) {
    const key = messageAt(work, place).key;
    if (key === undefined) {
      batch.push(place);
    } else if (blocked.has(key) || (fromLog && options.isSetAside(key))) {
      work.setAside.push(setAsideOf(work, place, {}));
    } else if (inBatch?.has(key) === true) {
      rest.push(place);
    } else {
      inBatch?.add(key);
      batch.push(place);
    }
  }
  return { batch, rest };
}

async function send(work: Work, batch: readonly number[]): Promise<readonly PublishResult[]> {
  const { publisher, timeout, lost, stop, clock = systemClock } = work.options;
  const messages =
    batch.length === work.page.messages.length ? work.page.messages : batch.map((place) => messageAt(work, place));
  const tooLate = () =>
    new PublishError(`the publisher did not answer within ${String(timeout)} ms`, { kind: 'retryable' });
  try {
    const results = await withDeadline(
      timeout,
      lost,
      tooLate,
      (signal) => publisher.publishBatch(messages, { signal, stop }),
      clock,
    );
    const wrong = wrongIn(results, messages.length);
    if (wrong === undefined) return results;
    throw new PublishError(`${wrong}: none of them counts`, { kind: 'retryable' });
  } catch (thrown) {
    const result: PublishResult = { acknowledged: false, error: toError(thrown) };
    return messages.map(() => result);
  }
}

/** What is wrong with the answer to a batch, of a publisher whose types nobody checked. */
function wrongIn(results: unknown, count: number): string | undefined {
  const { length } = (results ?? {}) as { length?: unknown };
  if (!Array.isArray(results) || length !== count) {
    return `the publisher answered ${String(length)} results for ${String(count)} messages`;
  }
  const isResult = (result: unknown) => {
    const { acknowledged, error } = (result ?? {}) as { acknowledged?: unknown; error?: unknown };
    return acknowledged === true || (acknowledged === false && error instanceof Error);
  };
  // Not `every`: it skips the holes of a sparse array.
  const place = Array.from(results as unknown[]).findIndex((result) => !isResult(result));
  return place < 0
    ? undefined
    : `the publisher's result ${String(place)} of ${String(count)} is neither an acknowledgement nor an Error`;
}

/**
 * The error of the broker as a whole, if that is what failed: any of the connection, or all of a batch.
 * Messages that failed before say nothing of the broker by failing again, nor do those of one key,
 * which fail together: a pause for them would hold up everybody.
 */
function outageIn(
  work: Work,
  batch: readonly number[],
  results: readonly PublishResult[],
  outages: number,
): Error | undefined {
  let first: Error | undefined;
  let all = work.page.attempts === undefined && outages < work.options.wholeBatchRetries;
  for (const result of results) {
    if (result.acknowledged) {
      all = false;
      continue;
    }
    const kind = failureKind(result.error);
    if (kind === 'connection') return result.error;
    if (kind === 'permanent' || isUnsent(work, result.error)) all = false;
    first ??= result.error;
  }
  return all && new Set(batch.map((place) => messageAt(work, place).key ?? place)).size > 1 ? first : undefined;
}

/** Whether a message was not sent because the relay is to stop. */
function isUnsent({ options: { stop } }: Work, error: Error): boolean {
  return stop.aborted && error.cause === stop.reason;
}

/** Records every result, and returns the places that are to be sent again. */
function settleResults(
  work: Work,
  batch: readonly number[],
  results: readonly PublishResult[],
  outage: boolean,
): number[] {
  const again: number[] = [];
  /** Keys of which an earlier message of this batch is dead: the later ones failed behind it only. */
  const pastDead = new Set<string>();
  batch.forEach((place, i) => {
    const result = results[i] as PublishResult;
    if (result.acknowledged) {
      work.acknowledged += 1;
      return;
    }
    const { key } = messageAt(work, place);
    const kind = failureKind(result.error);
    if (key !== undefined && work.blocked.has(key)) {
      work.setAside.push(setAsideOf(work, place, {}));
    } else if (key !== undefined && pastDead.has(key) && kind !== 'permanent') {
      again.push(place);
    } else if ((outage && kind !== 'permanent') || isUnsent(work, result.error)) {
      again.push(place);
    } else {
      fail(work, place, result.error);
      if (key !== undefined) (kind === 'permanent' ? pastDead : work.blocked).add(key);
    }
  });
  return again;
}

function fail(work: Work, place: number, cause: Error): void {
  const { id } = messageAt(work, place);
  const attempts = (work.page.attempts?.[place] ?? 0) + 1;
  const kind = failureKind(cause);
  const dead = kind === 'permanent';
  const retryIn = dead ? undefined : backoff(attempts, work.options.retry, work.options.clock);
  const error = new PublishError(
    dead
      ? `message ${id} is a dead letter: ${cause.message}`
      : `message ${id} was not published (attempt ${String(attempts)}, next in ${String(Math.round(retryIn ?? 0))} ms): ${cause.message}`,
    { kind, cause },
  );
  work.setAside.push(
    setAsideOf(work, place, { attempts, error: cause, dead, ...(retryIn !== undefined && { retryIn }) }),
  );
  work.options.onFailure(error);
}

function setAsideOf(work: Work, place: number, more: Partial<SetAside>): SetAside {
  return { message: messageAt(work, place), attempts: work.page.attempts?.[place] ?? 0, dead: false, ...more };
}

function messageAt(work: Work, place: number): Message {
  return work.page.messages[place] as Message;
}

import { Answers } from './outcomes.js';
import type { Answer, Pass } from './circuit-breaker.js';
import { PublishError, toError } from '../errors.js';
import type { Page } from '../contracts/feed.js';
import type { Message } from '../contracts/message.js';
import { Outstanding, type CallOptions, type Pace } from './pace.js';
import { isPaced } from './single-publisher.js';
import type { BatchPublisher, PublishResult } from '../contracts/publisher.js';
import type { Earlier, Late, PageOutcome, PublishPageOptions } from './types.js';
import { withDeadline } from '../util/async.js';

/** A page that is being published. */
export interface Publication {
  /** @throws the reason of `lost`, and nothing else. */
  readonly outcome: Promise<PageOutcome>;
  /** Whether a message of this key is neither acknowledged nor set aside yet. */
  isBusy(key: string): boolean;
  /** Whether a message of this key was set aside. */
  hasSetAside(key: string): boolean;
}

/** As many messages find out whether a broker is back. */
const PROBE_SIZE = 10;

/**
 * Publishes a page: in order per key, each message until it is acknowledged, set aside, or given up.
 * While the broker as a whole fails, the page waits, and nobody's attempts are counted.
 */
export function publishPage(page: Page, options: PublishPageOptions, earlier: Earlier): Publication {
  const answers = new Answers(page, options);
  let pending: readonly number[] = page.messages.map((_, place) => place);
  let busy: Set<string | undefined> | undefined;
  const setPending = (places: readonly number[]) => {
    pending = places;
    busy = undefined;
  };

  /** What can be sent now: unless the publisher keeps the order of keys in a batch, one message of each. */
  function nextBatch(most: number): { batch: number[]; rest: number[] } {
    const fromLog = page.attempts === undefined;
    const inBatch = options.publisher.batchKeepsKeyOrder === true ? undefined : new Set<string>();
    const batch: number[] = [];
    const rest: number[] = [];
    /** Keys of which a message has to wait: the later ones do too. */
    const waiting = new Set<string>();
    let bytes = 0;
    for (const place of pending) {
      const message = page.messages[place] as Message;
      const { key } = message;
      if (key !== undefined && (answers.hasSetAside(key) || (fromLog && earlier.isSetAside(key)))) {
        answers.behind(place);
        continue;
      }
      const size = options.batchBytes === Infinity ? 0 : sizeOf(message);
      const isFull = batch.length >= most || (batch.length > 0 && bytes + size > options.batchBytes);
      const mustWait = key !== undefined && (waiting.has(key) || inBatch?.has(key) === true || earlier.isBusy(key));
      const unreadable = page.unreadable?.get(message);
      if (isFull || mustWait) {
        rest.push(place);
        if (key !== undefined) waiting.add(key);
      } else if (unreadable !== undefined) {
        answers.unreadable(place, unreadable);
      } else {
        if (key !== undefined) inBatch?.add(key);
        bytes += size;
        batch.push(place);
      }
    }
    return { batch, rest };
  }

  /** Results for each; `Outstanding` for what of a slow call is not answered, unless it is to find out about the broker. */
  function send(batch: readonly number[], { probe }: Pass): Promise<readonly PublishResult[]> {
    const pace = probe ? undefined : options.pace;
    if (pace === undefined) return request(batch);
    if (!isPaced(options.publisher)) return pace.patiently(request(batch), batch.length);
    return new Promise((resolve) => {
      void request(batch, { pace, onEarly: resolve }).then(resolve);
    });
  }

  /** One call. Its deadline, and the end of the lease, hold also for what it answers late. Never rejects. */
  async function request(
    batch: readonly number[],
    early?: { readonly pace: Pace; readonly onEarly: (results: readonly PublishResult[]) => void },
  ): Promise<readonly PublishResult[]> {
    const { publisher, timeout, stop, clock, calls, cut } = options;
    const messages =
      batch.length === page.messages.length ? page.messages : batch.map((place) => page.messages[place] as Message);
    const call = calls?.begin();
    const tooLate = () =>
      call && calls
        ? calls.tooLate(call, timeout)
        : new PublishError(`the publisher did not answer within ${String(timeout)} ms`, { kind: 'retryable' });
    let isAcknowledged = false;
    try {
      const results = await withDeadline(
        timeout,
        options.lost,
        tooLate,
        (signal) => {
          const answer = publisher.publishBatch(messages, requestOptions(options, signal, stop, early?.pace));
          return early ? untilAll(answer, messages.length, early.onEarly) : answer;
        },
        clock,
        cut,
      );
      const wrong = wrongIn(results, messages.length);
      isAcknowledged = wrong === undefined && results.some(({ acknowledged }) => acknowledged);
      if (wrong === undefined) return results;
      throw new PublishError(`${wrong}: none of them counts`, { kind: 'retryable' });
    } catch (thrown) {
      const result: PublishResult = { acknowledged: false, error: toError(thrown) };
      return messages.map(() => result);
    } finally {
      if (call !== undefined) calls?.end(call, isAcknowledged);
    }
  }

  async function sendBatch(pass: Pass, { batch, rest }: { batch: number[]; rest: number[] }): Promise<void> {
    const { circuit, clock, progress } = options;
    let answer: Answer | undefined;
    try {
      const sentAt = clock.now();
      const results = await send(batch, pass);
      options.lost.throwIfAborted();
      const now = answers.postpone(batch, results, { sentAt, pass });
      const taken = answers.take(now.batch, rest, now.results, clock.now() - sentAt);
      setPending(taken.pending);
      answer = taken;
    } finally {
      circuit.leave(pass, answer);
      progress.ring();
    }
  }

  async function run(): Promise<PageOutcome> {
    const { circuit, suspicion, stop, progress, clock } = options;
    const patient = page.attempts !== undefined;
    while (pending.length > 0 && !stop.aborted) {
      options.lost.throwIfAborted();
      const pass = circuit.tryEnter(patient) ?? (await circuit.enter(patient, stop, options.lost));
      if (pass === undefined) continue;
      const next = nextBatch(pass.probe && !suspicion.exhausted ? PROBE_SIZE : Infinity);
      if (next.batch.length > 0 && !options.lost.aborted) {
        await sendBatch(pass, next);
        continue;
      }
      circuit.leave(pass);
      setPending(next.rest);
      // What is left waits for earlier pages. Nothing may happen between looking at them and waiting.
      if (next.rest.length > 0) await progress.wait(clock, Infinity, stop, options.lost);
    }
    progress.ring();
    return answers.outcome(pending);
  }

  return {
    outcome: run(),
    isBusy(key) {
      if (pending.length === 0) return false;
      busy ??= new Set(pending.map((place) => page.messages[place]?.key));
      return busy.has(key);
    },
    hasSetAside: (key) => answers.hasSetAside(key),
  };
}

/** What becomes of the messages of a slow call, once it is answered: as of any that were set aside. */
export async function publishLate(
  { page, results, sentAt, pass }: Late,
  options: PublishPageOptions,
): Promise<PageOutcome> {
  const all = await results;
  options.lost.throwIfAborted();
  const answers = new Answers(page, options);
  const places = page.messages.map((_, place) => place);
  const taken = answers.take(places, [], all, options.clock.now() - sentAt);
  // Others were acknowledged while it was waited for: what its messages have in common is that it was one call.
  const outage = taken.outage?.certain === true ? taken.outage : undefined;
  options.circuit.leave({ ...pass, probe: false }, { acknowledged: taken.acknowledged, outage });
  const outcome = answers.outcome(taken.pending);
  // Nothing is known of these: they are due at once.
  return { ...outcome, untried: outcome.untried.map((each) => ({ ...each, retryIn: 0 })) };
}

/** The answer to a batch, once the slow calls within it are over; what there is until then is told. */
async function untilAll(
  answer: ReturnType<BatchPublisher['publishBatch']>,
  count: number,
  onEarly: (results: readonly PublishResult[]) => void,
): Promise<readonly PublishResult[]> {
  const all = await answer;
  const late = wrongIn(all, count) === undefined ? callsOf(all) : [];
  if (late.length > 0) {
    onEarly(all);
    await Promise.all(late);
  }
  return all;
}

/** The calls of which some results are still to come. */
function callsOf(results: readonly PublishResult[]): Promise<unknown>[] {
  return results.flatMap((result) =>
    !result.acknowledged && result.error instanceof Outstanding ? (result.error.call?.results ?? []) : [],
  );
}

/** What a call is told; its signal asks for the lease anew whenever it is read, as before each of several requests. */
function requestOptions(
  options: PublishPageOptions,
  signal: () => AbortSignal,
  stop: AbortSignal,
  pace: CallOptions['pace'],
): CallOptions {
  return {
    ...(pace && { pace }),
    get signal() {
      // Asking aborts it where it has to, and with it the signal of the call.
      return options.lost.aborted ? options.lost : signal();
    },
    stop,
  };
}

const encoder = new TextEncoder();

/** Roughly what a message takes, in bytes: payload, metadata, id, topic and key. */
function sizeOf({ id, payload, metadata, topic = '', key = '' }: Message): number {
  const texts = [id, topic, key, ...Object.entries(metadata).flat()];
  return payload.byteLength + encoder.encode(texts.join('')).byteLength;
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

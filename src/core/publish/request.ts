import { PublishError, toError } from '../errors.js';
import type { Pass } from './circuit-breaker.js';
import type { Message } from '../contracts/message.js';
import { Outstanding, type CallOptions, type Pace } from './pace.js';
import type { PublishResult } from '../contracts/publisher.js';
import { isPaced } from './single-publisher.js';
import type { PublishPageOptions } from './types.js';
import { withDeadline } from '../util/async.js';

type Results = readonly PublishResult[];

/** Where a call is answered in part before it is over. */
interface Early {
  readonly pace: Pace;
  readonly onEarly: (results: Results) => void;
}

/**
 * Sends messages in one call: results for each, or `Outstanding` for what of a slow call is not answered, unless the
 * call is to find out about the broker. Never rejects.
 */
export function send(messages: readonly Message[], options: PublishPageOptions, { probe }: Pass): Promise<Results> {
  const pace = probe ? undefined : options.pace;
  if (pace === undefined) return request(messages, options);
  if (!isPaced(options.publisher)) return pace.patiently(request(messages, options), messages.length);
  return new Promise((resolve) => {
    void request(messages, options, { pace, onEarly: resolve }).then(resolve);
  });
}

/** One call. Its deadline, and the end of the lease, hold also for what it answers late. Never rejects. */
async function request(messages: readonly Message[], options: PublishPageOptions, early?: Early): Promise<Results> {
  const { timeout, clock, calls, cut } = options;
  const call = calls?.begin();
  const tooLate = () =>
    call && calls
      ? calls.tooLate(call, timeout)
      : new PublishError(`the publisher did not answer within ${String(timeout)} ms`, { kind: 'retryable' });
  const ask = (signal: () => AbortSignal) => answerTo(messages, options, signal, early);
  let isAcknowledged = false;
  try {
    const results = await withDeadline(timeout, options.lost, tooLate, ask, clock, cut);
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

/** What the publisher answers; where it may answer in part, once the slow calls within it are over. */
function answerTo(
  messages: readonly Message[],
  options: PublishPageOptions,
  signal: () => AbortSignal,
  early: Early | undefined,
): Promise<Results> {
  const answer = options.publisher.publishBatch(messages, callOptions(options, signal, early?.pace));
  return early ? untilAll(answer, messages.length, early.onEarly) : answer;
}

/** The answer to a batch, once the slow calls within it are over; what there is until then is told. */
async function untilAll(answer: Promise<Results>, count: number, onEarly: Early['onEarly']): Promise<Results> {
  const all = await answer;
  const late = wrongIn(all, count) === undefined ? callsOf(all) : [];
  if (late.length > 0) {
    onEarly(all);
    await Promise.all(late);
  }
  return all;
}

/** The calls of which some results are still to come. */
function callsOf(results: Results): Promise<unknown>[] {
  return results.flatMap((result) =>
    !result.acknowledged && result.error instanceof Outstanding ? (result.error.call?.results ?? []) : [],
  );
}

/** What a call is told; its signal asks for the lease anew whenever it is read, as before each of several requests. */
function callOptions(options: PublishPageOptions, signal: () => AbortSignal, pace: CallOptions['pace']): CallOptions {
  return {
    ...(pace && { pace }),
    get signal() {
      // Asking aborts it where it has to, and with it the signal of the call.
      return options.lost.aborted ? options.lost : signal();
    },
    stop: options.stop,
  };
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

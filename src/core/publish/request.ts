import { PublishError, toError } from '../errors.js';
import type { Pass } from './circuit-breaker.js';
import type { Message } from '../contracts/message.js';
import { Outstanding, type CallOptions, type Pace } from './pace.js';
import type { PublishResult } from '../contracts/publisher.js';
import { isPaced } from './single-publisher.js';
import type { PublishPageOptions } from './types.js';
import { withDeadline } from '../util/async.js';

type Results = readonly PublishResult[];

/** How a call is answered in part before it has ended. */
interface Early {
  readonly pace: Pace;
  readonly onEarly: (results: Results) => void;
}

/**
 * Sends messages in one call, and resolves to a result for each. If the call is slow, the messages without an answer
 * get the result `Outstanding`, unless the call is to find out whether the broker is back. Never rejects.
 */
export function send(messages: readonly Message[], options: PublishPageOptions, { probe }: Pass): Promise<Results> {
  const pace = probe ? undefined : options.pace;
  if (pace === undefined) return request(messages, options);
  if (!isPaced(options.publisher)) return pace.patiently(request(messages, options), messages.length);
  return new Promise((resolve) => {
    void request(messages, options, { pace, onEarly: resolve }).then(resolve);
  });
}

/** Makes one call. Its deadline, and the end of the lease, also apply to the answers that come late. Never rejects. */
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
    throw new PublishError(`${wrong}, so all messages of the call count as not published`, { kind: 'retryable' });
  } catch (thrown) {
    const result: PublishResult = { acknowledged: false, error: toError(thrown) };
    return messages.map(() => result);
  } finally {
    if (call !== undefined) calls?.end(call, isAcknowledged);
  }
}

/**
 * The publisher's answer. If the publisher may answer in part (`early`), resolves once the slow calls within the batch
 * have ended.
 */
function answerTo(
  messages: readonly Message[],
  options: PublishPageOptions,
  signal: () => AbortSignal,
  early: Early | undefined,
): Promise<Results> {
  const answer = options.publisher.publishBatch(messages, callOptions(options, signal, early?.pace));
  return early ? untilAll(answer, messages.length, early.onEarly) : answer;
}

/**
 * Resolves to the answer to a batch once the slow calls within it have ended. Until then, `onEarly` gets the results
 * that there are.
 */
async function untilAll(answer: Promise<Results>, count: number, onEarly: Early['onEarly']): Promise<Results> {
  const all = await answer;
  const late = wrongIn(all, count) === undefined ? callsOf(all) : [];
  if (late.length > 0) {
    onEarly(all);
    await Promise.all(late);
  }
  return all;
}

/** The promises of the slow calls whose results are still to come. */
function callsOf(results: Results): Promise<unknown>[] {
  return results.flatMap((result) =>
    !result.acknowledged && result.error instanceof Outstanding ? (result.error.call?.results ?? []) : [],
  );
}

/**
 * The options of a call. The lease is checked anew whenever `signal` is read, such as before each of several requests.
 */
function callOptions(options: PublishPageOptions, signal: () => AbortSignal, pace: CallOptions['pace']): CallOptions {
  return {
    ...(pace && { pace }),
    get signal() {
      // Reading `lost` aborts it if the lease is lost, and that aborts the signal of the call.
      return options.lost.aborted ? options.lost : signal();
    },
    stop: options.stop,
  };
}

/**
 * What is wrong with the answer to a batch; `undefined` if nothing is. Nobody may have checked the publisher's types.
 */
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

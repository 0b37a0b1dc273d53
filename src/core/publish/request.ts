import { PublishError, toError } from '../errors.js';
import type { Pass } from './circuit-breaker.js';
import type { Message } from '../contracts/message.js';
import { Outstanding, type CallOptions, type Pace } from './pace.js';
import type { PublishResult } from '../contracts/publisher.js';
import { isPaced } from './single-publisher.js';
import type { PublishPageOptions } from './types.js';
import { withDeadline } from '../util/async.js';

type Results = readonly PublishResult[];

/** Lets a call return a partial answer before it has ended. */
interface Early {
  readonly pace: Pace;
  readonly onEarly: (results: Results) => void;
}

/**
 * Sends messages in one call, and resolves to a result for each. If the call is slow, the messages without an answer
 * get the result `Outstanding`, unless the call is a probe. Never rejects.
 */
export function send(messages: readonly Message[], options: PublishPageOptions, { probe }: Pass): Promise<Results> {
  const pace = probe ? undefined : options.pace;
  if (pace === undefined) return request(messages, options);
  if (!isPaced(options.publisher)) return pace.patiently(request(messages, options), messages.length);
  return new Promise((resolve) => {
    void request(messages, options, { pace, onEarly: resolve }).then(resolve);
  });
}

/** Makes one call. The deadline and the loss of the lease also apply to late answers. Never rejects. */
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
 * Returns the publisher's answer. If the publisher can give a partial answer (`early`), resolves once the slow calls
 * within the batch have ended.
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
 * Resolves to the answer for a batch once the slow calls within it have ended. Before that, `onEarly` receives the
 * results so far.
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

/** Returns the promises of the slow calls whose results are still missing. */
function callsOf(results: Results): Promise<unknown>[] {
  return results.flatMap((result) =>
    !result.acknowledged && result.error instanceof Outstanding ? (result.error.call?.results ?? []) : [],
  );
}

/**
 * Returns the options for a call. Each time `signal` is read, such as before each of several requests, the lease is
 * checked again.
 */
function callOptions(options: PublishPageOptions, signal: () => AbortSignal, pace: CallOptions['pace']): CallOptions {
  return {
    ...(pace && { pace }),
    get signal() {
      // If the lease is lost, reading `lost` aborts it, which also aborts the call's signal.
      return options.lost.aborted ? options.lost : signal();
    },
    stop: options.stop,
  };
}

/**
 * Describes what is wrong with the answer to a batch, or returns `undefined` if the answer is valid. A publisher
 * without types can return any value.
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
  // Do not use `every`, because it skips the holes in a sparse array.
  const place = Array.from(results as unknown[]).findIndex((result) => !isResult(result));
  return place < 0
    ? undefined
    : `the publisher's result ${String(place)} of ${String(count)} is neither an acknowledgement nor an Error`;
}

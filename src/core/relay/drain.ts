import { systemClock } from '../util/clock.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import type { MessengerEvent } from '../contracts/events.js';
import type { Messenger } from './messenger.js';
import type { OutboxRelayOptions } from './handle.js';
import { isAbort, onAbort } from '../util/async.js';

/** How a drain is limited. */
export interface DrainOptions extends Omit<OutboxRelayOptions, 'interval'> {
  /**
   * Sends nothing more after so many milliseconds, whatever is left: what was sent is waited for, up to
   * `stopTimeout`, and settled; with `cleanUp` it can take one cleaning more. @default 10_000
   */
  readonly budget?: number;
  /** Sends nothing more once it aborts, and does not clean: resolves to what was published by then. */
  readonly signal?: AbortSignal | undefined;
}

/** Publishes until there is nothing new, the broker as a whole fails, or the time is over; then cleans, if it is to. */
export async function drained(
  messengerOf: (options: Omit<OutboxRelayOptions, 'signal'>) => Messenger,
  { signal, onEvent, ...options }: OutboxRelayOptions,
  budget: number,
): Promise<number> {
  /** Aborted when the time is over, or all of it is to end. */
  const over = new AbortController();
  const end = () => {
    over.abort(signal?.reason);
  };
  const failures: PublishError[] = [];
  /** What was set aside: a store without a side table lists it again. */
  const setAside = new Set<string>();
  const seen = { total: 0, isNew: false };
  const watch = (event: MessengerEvent) => {
    if (event.type === 'claimed') seen.isNew ||= event.messages.some(({ id }) => !setAside.has(id));
    if (event.type === 'published') seen.total += event.messages.length;
    if (event.type === 'parked' || event.type === 'dead' || event.type === 'blocked') setAside.add(event.message.id);
    onEvent?.(event);
  };
  const isHandler = onEvent === undefined || typeof onEvent === 'function';
  // What is no function is for the messenger to refuse.
  const messenger = messengerOf({ ...options, onEvent: isHandler ? watch : onEvent });
  const wasNew = async (): Promise<boolean> => {
    seen.isNew = false;
    try {
      await messenger.publish({ signal: over.signal });
    } catch (error) {
      // It was looking for more when the time was over.
      if (isAbort(error, over.signal)) return false;
      if (!(error instanceof PublishError)) throw error;
      failures.push(error);
      if (error.kind === 'connection') return false;
    }
    return seen.isNew;
  };
  const cancel = systemClock.setTimeout(end, budget);
  const forget = signal && onAbort(signal, end);
  if (signal?.aborted === true) end();
  const until = systemClock.now() + budget;
  try {
    while (!over.signal.aborted && (await wasNew()) && systemClock.now() < until);
  } finally {
    cancel();
    forget?.();
  }
  if (options.cleanUp !== undefined && signal?.aborted !== true) await messenger.clean(signal ? { signal } : {});
  const [first] = failures;
  if (first === undefined) return seen.total;
  throw new PublishError(`${String(seen.total)} messages were published, and some were not: ${textOf(first)}`, {
    kind: first.kind,
    cause: new AggregateError(failures),
  });
}

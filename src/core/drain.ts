import { PublishError } from './errors.js';
import type { Messenger } from './messenger.js';
import type { OutboxRelayOptions } from './running-relay.js';

/** How a drain is limited. */
export interface DrainOptions extends Omit<OutboxRelayOptions, 'interval'> {
  /** Begins nothing more after so many milliseconds. @default 10_000 */
  readonly budget?: number;
}

/** Publishes until there is nothing new, the broker as a whole fails, or the time is over; then cleans, if it is to. */
export async function drained(
  messengerOf: (options: Omit<OutboxRelayOptions, 'signal'>) => Messenger,
  { signal, ...options }: OutboxRelayOptions,
  over: number,
): Promise<number> {
  const call = signal ? { signal } : {};
  const failures: PublishError[] = [];
  /** What was set aside: a store without a side table lists it again. */
  const setAside = new Set<string>();
  const seen = { total: 0, isNew: false };
  const messenger = messengerOf({
    ...options,
    onEvent: (event) => {
      if (event.type === 'claimed' && !event.retries) seen.isNew = event.messages.some(({ id }) => !setAside.has(id));
      if (event.type === 'published') seen.total += event.messages.length;
      if (event.type === 'parked' || event.type === 'dead' || event.type === 'blocked') setAside.add(event.message.id);
      options.onEvent?.(event);
    },
  });
  const wasNew = async (): Promise<boolean> => {
    seen.isNew = false;
    try {
      await messenger.publish(call);
    } catch (error) {
      if (!(error instanceof PublishError)) throw error;
      failures.push(error);
      if (error.kind === 'connection') return false;
    }
    return seen.isNew;
  };
  while ((await wasNew()) && performance.now() < over && signal?.aborted !== true);
  if (options.cleanUp !== undefined) await messenger.clean(call);
  const [first] = failures;
  if (first === undefined) return seen.total;
  throw new PublishError(`${String(seen.total)} messages were published, and some were not: ${first.message}`, {
    kind: first.kind,
    cause: new AggregateError(failures),
  });
}

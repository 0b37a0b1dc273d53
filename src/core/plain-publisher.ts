import { failureKind, PublishError, toError } from './errors.js';
import type { Message } from './message.js';
import { ACKNOWLEDGED, type BatchPublisher, type Publisher, type PublishResult } from './publisher.js';

/** How `sendInLanes` sends. */
export interface LaneOptions<Item> {
  /** Items of one lane are sent one after the other; `undefined` is a lane of the item's own. */
  laneOf(item: Item): string | undefined;
  /** Sends one request and answers for each item, in order. What it throws is the error of all of them. */
  send(items: readonly Item[]): Promise<readonly PublishResult[]>;
  /** Requests in flight at once, at least 1. */
  readonly concurrency: number;
  /** Items in one request, at least 1. */
  readonly maxItems: number;
  /** What the items of one request may weigh together, by `sizeOf`. @default no limit */
  readonly maxSize?: number;
  /** @default 0 */
  sizeOf?(item: Item): number;
  /** The error of an item that is not worth sending. @default none */
  refusalOf?(item: Item): PublishError | undefined;
  /** Aborted: nothing more is sent. */
  readonly signal?: AbortSignal | undefined;
  /** Aborted: nothing more is sent either. */
  readonly stop?: AbortSignal | undefined;
}

/** What is left of a lane: the items to send, with their places in the result. */
type Lane<Item> = { readonly item: Item; readonly place: number }[];

/**
 * Sends items with bounded concurrency, in order within a lane: a request holds at most one item of
 * a lane, the next one is sent after that was acknowledged, and after a failure the rest of the lane
 * is not sent. A failure of the connection, or an abort, stops whatever is not in flight yet.
 *
 * Resolves with one result per item, in the order given; never rejects.
 */
export function sendInLanes<Item>(
  items: readonly Item[],
  options: LaneOptions<Item>,
): Promise<readonly PublishResult[]> {
  const results = new Array<PublishResult>(items.length);
  // The lanes that have nothing in flight.
  const free = lanesOf(items, options);
  let inFlight = 0;
  let stopped: Error | undefined;

  const fail = (lane: Lane<Item>, error: Error): void => {
    for (const { place } of lane.splice(0)) results[place] = { acknowledged: false, error };
  };

  /** Records the answer to a lane's first item. */
  const settle = (lane: Lane<Item>, result: PublishResult): void => {
    const head = lane.shift();
    if (head !== undefined) results[head.place] = result;
    if (result.acknowledged) {
      if (lane.length > 0) free.push(lane);
      return;
    }
    if (failureKind(result.error) === 'connection') stopped ??= result.error;
    fail(lane, behind(result.error));
  };

  /** The lanes whose first items make up the next request. */
  const take = (): Lane<Item>[] => {
    const taken: Lane<Item>[] = [];
    let size = 0;
    for (let lane = free[0]; lane?.[0] !== undefined && taken.length < options.maxItems; lane = free[0]) {
      const refusal = options.refusalOf?.(lane[0].item);
      if (refusal === undefined) {
        size += options.sizeOf?.(lane[0].item) ?? 0;
        if (taken.length > 0 && size > (options.maxSize ?? Infinity)) break;
        taken.push(lane);
      }
      free.shift();
      if (refusal !== undefined) settle(lane, { acknowledged: false, error: refusal });
    }
    return taken;
  };

  const request = async (lanes: readonly Lane<Item>[]): Promise<void> => {
    const answers = await answersOf(
      lanes.flatMap((lane) => (lane[0] === undefined ? [] : [lane[0].item])),
      options,
    );
    lanes.forEach((lane, i) => {
      settle(lane, answers[i] ?? { acknowledged: false, error: unanswered() });
    });
  };

  return new Promise((resolve) => {
    const pump = (): void => {
      while (inFlight < options.concurrency) {
        stopped ??= abortion(options.signal) ?? abortion(options.stop);
        const lanes = stopped === undefined ? take() : [];
        if (lanes.length === 0) break;
        inFlight += 1;
        void request(lanes).then(() => {
          inFlight -= 1;
          pump();
        });
      }
      if (inFlight > 0) return;
      if (stopped !== undefined) for (const lane of free) fail(lane, stopped);
      resolve(results);
    };
    pump();
  });
}

/**
 * The batch form of a publisher that has none: messages are sent one at a time within a key and up
 * to `concurrency` at once across keys. After a failure the later messages of that key in the call
 * are not sent and fail as retryable, so that the publisher keeps the order of keys.
 */
export function asBatchPublisher(publisher: Publisher, concurrency: number): BatchPublisher {
  return {
    batchKeepsKeyOrder: true,
    publish: (message, options) => publisher.publish(message, options),
    publishBatch: (messages, options) =>
      sendInLanes<Message>(messages, {
        laneOf: (message) => message.key,
        send: async ([message]) => {
          if (message !== undefined) await publisher.publish(message, options);
          return [ACKNOWLEDGED];
        },
        concurrency,
        maxItems: 1,
        signal: options?.signal,
        stop: options?.stop,
      }),
  };
}

function lanesOf<Item>(items: readonly Item[], options: LaneOptions<Item>): Lane<Item>[] {
  const lanes: Lane<Item>[] = [];
  const named = new Map<string, Lane<Item>>();
  items.forEach((item, place) => {
    const name = options.laneOf(item);
    const known = name === undefined ? undefined : named.get(name);
    if (known !== undefined) {
      known.push({ item, place });
      return;
    }
    const lane = [{ item, place }];
    lanes.push(lane);
    if (name !== undefined) named.set(name, lane);
  });
  return lanes;
}

async function answersOf<Item>(items: readonly Item[], options: LaneOptions<Item>): Promise<readonly PublishResult[]> {
  try {
    return await options.send(items);
  } catch (thrown) {
    const error = toError(thrown);
    return items.map(() => ({ acknowledged: false, error }));
  }
}

function behind(cause: Error): PublishError {
  return new PublishError('not sent: behind an earlier failure of its key', { kind: 'retryable', cause });
}

function unanswered(): PublishError {
  return new PublishError('the broker gave no answer for this message', { kind: 'retryable' });
}

function abortion(signal: AbortSignal | undefined): PublishError | undefined {
  if (signal?.aborted !== true) return undefined;
  return new PublishError('not sent: the call was aborted', { kind: 'retryable', cause: signal.reason });
}

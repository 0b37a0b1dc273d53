import { isUnanswered, notSent } from './calls.js';
import { PublishError, toError, type FailureKind } from '../errors.js';
import { failureKind } from './failure-kinds.js';
import { Outstanding, outstanding, type Pace } from './pace.js';
import type { PublishOptions, PublishResult } from '../contracts/publisher.js';

/** The options of `sendInLanes`. */
export interface LaneOptions<Item> {
  /**
   * Returns an item's lane, or `undefined` if the item has a lane of its own. Items in the same lane are sent one after
   * the other.
   */
  laneOf(item: Item): string | undefined;
  /**
   * Sends one request, and returns a result for each item, in order. If it throws, each item gets the error as its
   * result.
   */
  send(items: readonly Item[]): Promise<readonly PublishResult[]>;
  /** Limits how many requests are in flight at once. */
  readonly room: Room;
  /** The maximum number of items in one request: at least 1. */
  readonly maxItems: number;
  /** The maximum total size of the items in one request, as measured by `sizeOf`. @default no limit */
  readonly maxSize?: number;
  /** Returns the size of an item. @default 0 */
  sizeOf?(item: Item): number;
  /** Returns an error for an item that must not be sent. @default every item can be sent */
  refusalOf?(item: Item): PublishError | undefined;
  /**
   * The options with the call's signals, which are checked before each request. Once one of them has aborted, nothing
   * more is sent.
   */
  readonly call?: PublishOptions | undefined;
  /**
   * Detects slow requests. The items in a slow request get the result `Outstanding`. So do the items behind them in the
   * same lanes, which are not sent. A slow request still counts towards `room`.
   * @default waits for slow requests
   */
  readonly pace?: Pace | undefined;
  /** @default failureKind */
  readonly kindOf?: (error: Error) => FailureKind;
}

/** Limits how many requests are in flight at once. All calls with the same `Room` share its limit. */
export class Room {
  #free: number;
  #waiting: (() => void)[] = [];

  /** @param size At least 1. */
  constructor(size: number) {
    this.#free = size;
  }

  take(): boolean {
    if (this.#free === 0) return false;
    this.#free -= 1;
    return true;
  }

  giveBack(): void {
    this.#free += 1;
    // A waiting call that no longer needs room leaves it to the next call.
    while (this.#free > 0 && this.#waiting.length > 0) this.#waiting.shift()?.();
  }

  /** Calls back once, when there is room again. */
  whenFree(callback: () => void): void {
    this.#waiting.push(callback);
  }
}

/** The items in a lane that still have to be sent, each with its index in the results. */
type Lane<Item> = { readonly item: Item; readonly place: number }[];

/**
 * Sends items with bounded concurrency, and in order within a lane. A request contains at most one item from each lane.
 * The next item in a lane is sent only after the previous item was acknowledged. After a failure, the rest of the lane
 * is not sent. After a connection failure or an abort, no further requests are sent.
 *
 * Resolves to one result for each item, in the order of `items`. Never rejects.
 */
export function sendInLanes<Item>(
  items: readonly Item[],
  options: LaneOptions<Item>,
): Promise<readonly PublishResult[]> {
  const { kindOf = failureKind } = options;
  const results = new Array<PublishResult>(items.length);
  // The lanes without a request in flight.
  const free = lanesOf(items, options);
  let inFlight = 0;
  let stopped: Error | undefined;

  const fail = (lane: Lane<Item>, error: Error): void => {
    for (const { place } of lane.splice(0)) results[place] = { acknowledged: false, error };
  };

  /** Records the result of a lane's first item. */
  const settle = (lane: Lane<Item>, result: PublishResult): void => {
    const head = lane.shift();
    if (head !== undefined) results[head.place] = result;
    if (result.acknowledged) {
      if (lane.length > 0) free.push(lane);
      return;
    }
    if (result.error instanceof Outstanding) {
      for (const { place } of lane.splice(0)) results[place] = outstanding();
      return;
    }
    if (isUnanswered(result.error)) stopped ??= notSent('the publisher does not answer', result.error);
    else if (kindOf(result.error) === 'connection') stopped ??= result.error;
    fail(lane, behind(result.error));
  };

  /** Takes the lanes whose first items make up the next request. */
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

  /**
   * Sends the first items of these lanes in one request, and records their results.
   * @returns an array with the request's promise if the request is slow, so that nothing else waits for it; otherwise
   *   an empty array.
   */
  const request = async (lanes: readonly Lane<Item>[]): Promise<Promise<unknown>[]> => {
    const answering = answersOf(
      lanes.flatMap((lane) => (lane[0] === undefined ? [] : [lane[0].item])),
      options,
    );
    const answers = await (options.pace?.patiently(answering, lanes.length) ?? answering);
    const [first] = answers;
    lanes.forEach((lane, i) => {
      settle(lane, answers[i] ?? { acknowledged: false, error: unanswered() });
    });
    return first?.acknowledged === false && first.error instanceof Outstanding ? [answering] : [];
  };

  return new Promise((resolve) => {
    const { room, call } = options;
    let isWaiting = false;
    const hasRoom = (): boolean => {
      if (room.take()) return true;
      if (!isWaiting) {
        isWaiting = true;
        room.whenFree(() => {
          isWaiting = false;
          pump();
        });
      }
      return false;
    };
    const pump = (): void => {
      for (;;) {
        stopped ??= abortion(call?.signal) ?? abortion(call?.stop);
        if (stopped !== undefined || free.length === 0 || !hasRoom()) break;
        const lanes = take();
        if (lanes.length === 0) {
          room.giveBack();
          break;
        }
        inFlight += 1;
        void request(lanes).then(([late]) => {
          inFlight -= 1;
          const giveBack = () => {
            room.giveBack();
          };
          if (late === undefined) giveBack();
          else void late.then(giveBack);
          pump();
        });
      }
      if (inFlight > 0 || (isWaiting && stopped === undefined)) return;
      if (stopped !== undefined) for (const lane of free) fail(lane, stopped);
      resolve(results);
    };
    pump();
  });
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
  return notSent('an earlier message with the same key failed', cause, true);
}

function unanswered(): PublishError {
  return new PublishError('the broker gave no answer for this message', { kind: 'retryable' });
}

function abortion(signal: AbortSignal | undefined): PublishError | undefined {
  if (signal?.aborted !== true) return undefined;
  return notSent('the call was aborted', signal.reason);
}

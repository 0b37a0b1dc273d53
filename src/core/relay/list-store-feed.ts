import type { StoreCallOptions } from '../contracts/call-options.js';
import type { Clock } from '../util/clock.js';
import type { Feed, ToPark } from '../contracts/feed.js';
import type { Message } from '../contracts/message.js';
import type { Store } from '../contracts/store.js';
import { serially, sleepBy } from '../util/async.js';

/** A message in a plain store that has failed, or that waits behind a failed message. */
interface Waiting {
  readonly attempts: number;
  /** When the message is due, in milliseconds of the relay's clock. */
  readonly due: number;
  /**
   * The key whose later messages wait behind this message. `undefined` for a dead letter, because nothing waits behind
   * it.
   */
  readonly key: string | undefined;
  readonly topic: string | undefined;
}

/**
 * How many failed messages are remembered. At this limit, the feed reads no new messages until some of them are
 * published. A plain store lists failed messages first, so each read has to request that many additional messages.
 */
const MAX_WAITING = 10_000;

/**
 * The pause between attempts for a message that would otherwise be a dead letter, in milliseconds. A plain store cannot
 * keep dead letters.
 */
const DEAD_RETRY = 300_000;

/**
 * Creates a feed from a plain `Store`, for one relay. It keeps in memory the state that other stores keep in a side
 * table. Each feed starts with an empty state. Nothing is lost, because the store still lists these messages as
 * unpublished.
 */
export function listStoreFeed(store: Store, pageSize: number, clock: Clock): Feed {
  const never = new AbortController().signal;
  /** Keyed by message id, because the store can create new objects for its messages each time. */
  const waiting = new Map<string, Waiting>();
  const waitingKeys = new Map<string, number>();
  const waitingTopics = new Map<string | undefined, number>();
  /** Calls to a plain store must not overlap. */
  const inTurn = serially();
  const unsettled = new Set<string>();

  function wait({ message, attempts, retryIn, dead, blocked, outstanding }: ToPark): void {
    forget(message);
    const isKept = blocked === true || outstanding === true;
    const delay = dead ? DEAD_RETRY : isKept ? Infinity : (retryIn ?? 0);
    const key = dead ? undefined : message.key;
    if (key !== undefined) count(waitingKeys, key, 1);
    count(waitingTopics, message.topic, 1);
    waiting.set(message.id, { attempts, due: clock.now() + delay, key, topic: message.topic });
  }

  function forget({ id }: Message): void {
    const known = waiting.get(id);
    if (known === undefined) return;
    waiting.delete(id);
    if (known.key !== undefined) count(waitingKeys, known.key, -1);
    count(waitingTopics, known.topic, -1);
  }

  /** Requests enough messages to include new ones after those that are waiting or in flight. */
  async function list(options: StoreCallOptions | undefined): Promise<readonly Message[]> {
    return store.messages(pageSize + waiting.size + unsettled.size, options);
  }

  return {
    lost: never,
    partitions: [0],
    unbalanced: false,
    rebalance: () => Promise.resolve(),
    waiting: (topic) => waitingTopics.get(topic) ?? 0,
    idle: (ms, options) => sleepBy(clock, ms, options?.signal),
    isParked: (key) => waitingKeys.has(key),

    async read(options) {
      if (waiting.size >= MAX_WAITING) return { messages: [] };
      // Use the state from before the request, because a message that is settled during the request can still be in the
      // list.
      const known = new Set([...waiting.keys(), ...unsettled]);
      const messages = (await list(options)).filter(({ id }) => !known.has(id)).slice(0, pageSize);
      for (const { id } of messages) unsettled.add(id);
      return { messages };
    },

    async retries(options) {
      const now = clock.now();
      if (![...waiting.values()].some(({ due }) => due <= now)) return { messages: [], attempts: [] };
      const blocked = new Set<string>();
      const messages = (await list(options))
        .filter((message) => {
          const state = waiting.get(message.id);
          if (state === undefined) return false;
          const { key } = state;
          const isDue = state.due <= now && (key === undefined || !blocked.has(key));
          // A message must not be tried before an earlier message with the same key, even if it is due.
          if (!isDue && key !== undefined) blocked.add(key);
          return isDue;
        })
        .slice(0, pageSize);
      return { messages, attempts: messages.map(({ id }) => waiting.get(id)?.attempts ?? 0) };
    },

    async settle(page, toPark) {
      // Park messages at once, so that `isParked` is already correct for pages that were read before.
      for (const each of toPark) wait(each);
      const kept = new Set(toPark.map(({ message }) => message));
      const published = page.messages.filter((message) => !kept.has(message));
      await inTurn(async () => {
        if (published.length > 0) await store.published(...published);
        for (const message of published) forget(message);
        for (const { id } of page.messages) unsettled.delete(id);
      });
    },

    close: () => Promise.resolve(),
  };
}

/** Adds `by` to the count for a name, and removes the name if its count reaches zero. */
function count<Name>(counts: Map<Name, number>, name: Name, by: number): void {
  const left = (counts.get(name) ?? 0) + by;
  if (left === 0) counts.delete(name);
  else counts.set(name, left);
}

/**
 * Routes messages to publishers by a metadata value.
 *
 * @module
 */
import { MessengerError, PublishError, toError } from '../core/errors.js';
import type { Message } from '../core/contracts/message.js';
import { describe } from '../core/util/describe.js';
import { asBatchPublisher } from '../core/publish/single-publisher.js';
import {
  isBatchPublisher,
  publisherOf,
  type BatchPublisher,
  type Publisher,
  type PublishFunction,
  type PublishOptions,
  type PublishResult,
} from '../core/contracts/publisher.js';

/** The options of `Mux`. */
export interface MuxOptions {
  /** Receives the messages that have no route. @default none: they fail permanently */
  fallback?: Publisher | PublishFunction;
  /**
   * How many calls can be in flight at once to a route without `publishBatch`. For each key, there is only one at a
   * time. @default 10
   */
  concurrency?: number;
}

/**
 * Combines several publishers into one. The value of one metadata entry decides which publisher gets a message. All
 * routes share one destination of the relay, so a broker that is down also holds up the messages for the other routes.
 * If that must not happen, use a separate destination for each broker.
 *
 * A relay never passes two messages with the same key in one batch, because two routes have no common order
 * (`batchKeepsKeyOrder` is false).
 *
 * @example
 * ```ts
 * const publisher = new Mux('broker', { orders: ordersPublisher, mail: mailPublisher }, { fallback: ordersPublisher });
 * ```
 */
export class Mux implements BatchPublisher {
  readonly batchKeepsKeyOrder = false;
  readonly #metadataKey: string;
  readonly #routes: ReadonlyMap<string, BatchPublisher>;
  readonly #fallback: BatchPublisher | undefined;

  /**
   * @param metadataKey The name of the metadata entry that decides.
   * @param routes The publishers, keyed by the value of that entry. There must be at least one.
   * @throws MessengerError `INVALID_OPTION`. The error quotes the invalid value.
   */
  constructor(
    metadataKey: string,
    routes: Readonly<Record<string, Publisher | PublishFunction>>,
    options: MuxOptions = {},
  ) {
    if (typeof metadataKey !== 'string' || metadataKey === '') {
      throw invalid(`metadataKey must be a non-empty string, got ${describe(metadataKey)}`);
    }
    const { fallback, concurrency = 10 } = options;
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw invalid(`concurrency must be a whole number of at least 1, got ${describe(concurrency)}`);
    }
    const entries = Object.entries(routes);
    if (entries.length === 0) throw invalid('routes must have at least one publisher, got none');
    this.#metadataKey = metadataKey;
    this.#routes = new Map(entries.map(([value, to]) => [value, batched(`route ${describe(value)}`, to, concurrency)]));
    this.#fallback = fallback === undefined ? undefined : batched('fallback', fallback, concurrency);
  }

  /**
   * @throws PublishError `permanent` if there is no route for the message. Otherwise, the error that the route throws.
   */
  async publish(message: Message, options?: PublishOptions): Promise<void> {
    const route = this.#routeOf(message);
    if (route instanceof PublishError) throw route;
    await route.publish(message, options);
  }

  async publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]> {
    const results = new Array<PublishResult>(messages.length);
    const places = new Map<BatchPublisher, number[]>();
    messages.forEach((message, place) => {
      const route = this.#routeOf(message);
      if (route instanceof PublishError) {
        results[place] = { acknowledged: false, error: route };
        return;
      }
      const of = places.get(route);
      if (of === undefined) places.set(route, [place]);
      else of.push(place);
    });
    await Promise.all(
      [...places].map(async ([route, of]) => {
        const some = of.flatMap((place) => messages[place] ?? []);
        const answers = await answersOf(route, some, options);
        of.forEach((place, i) => {
          results[place] = answers[i] ?? { acknowledged: false, error: unanswered() };
        });
      }),
    );
    return results;
  }

  #routeOf(message: Message): BatchPublisher | PublishError {
    const key = this.#metadataKey;
    const value = Object.hasOwn(message.metadata, key) ? message.metadata[key] : undefined;
    const route = (value === undefined ? undefined : this.#routes.get(value)) ?? this.#fallback;
    if (route !== undefined) return route;
    const found =
      value === undefined ? `no metadata ${describe(key)}` : `metadata ${describe(key)} = ${describe(value)}`;
    const known = [...this.#routes.keys()].map((name) => describe(name)).join(', ');
    return new PublishError(
      `message ${message.id} has ${found}, for which there is no route. The known routes are ${known}`,
      {
        kind: 'permanent',
      },
    );
  }
}

function batched(name: string, given: Publisher | PublishFunction, concurrency: number): BatchPublisher {
  const publisher = publisherOf(given);
  if (typeof (publisher as Partial<Publisher> | null | undefined)?.publish !== 'function') {
    throw invalid(`${name} must be a publisher, got ${describe(publisher)}`);
  }
  return isBatchPublisher(publisher) ? publisher : asBatchPublisher(publisher, concurrency);
}

/** If a route rejects as a whole, the messages of the other routes are not affected. */
async function answersOf(
  route: BatchPublisher,
  messages: readonly Message[],
  options: PublishOptions | undefined,
): Promise<readonly PublishResult[]> {
  try {
    return await route.publishBatch(messages, options);
  } catch (thrown) {
    const error = toError(thrown);
    return messages.map(() => ({ acknowledged: false, error }));
  }
}

function unanswered(): PublishError {
  return new PublishError('the route returned no result for this message', { kind: 'retryable' });
}

function invalid(text: string): MessengerError {
  return new MessengerError('INVALID_OPTION', text);
}

import type { CircuitStatus } from '../publish/circuit-breaker.js';
import { cleanOnce } from './cleanup.js';
import { MessengerError } from '../errors.js';
import type { MessengerOptions } from './options.js';
import type { Publisher, PublishFunction } from '../contracts/publisher.js';
import { newRound, publishRound, roundError, withFeed } from './round.js';
import { relaySettings, type RelaySettings } from './settings.js';
import { circuitStatus, datastoreStatus, type DatastoreStatus } from './status.js';
import { runRelay } from './supervisor.js';
import type { Store } from '../contracts/store.js';
import { uuidv7 } from '../util/uuid.js';

/** The options of a call. */
export interface MessengerCallOptions {
  /** Once this signal aborts, the call ends as soon as the messages in flight are settled. */
  signal?: AbortSignal;
}

/** The options of `start`. */
export interface StartOptions extends MessengerCallOptions {
  /** Called once, as soon as the relay has reached the store and can use it. @default nothing is called */
  onStarted?: () => void;
}

/**
 * Publishes a store's messages, and cleans the published ones. Each message is published at least once. Messages with
 * the same key are published in order. A message counts as published only when the broker has acknowledged it.
 *
 * If the process dies, at most `publishBatchSize` times `pipelineDepth` messages are published again. These are the
 * messages that were being published or settled.
 *
 * @example
 * ```ts
 * const messenger = new Messenger(store, publisher, { cleanUp: 3_600_000 });
 * await messenger.start({ signal });
 * ```
 */
export class Messenger {
  readonly #settings: RelaySettings;

  /**
   * @param publisher Sends messages to the broker. An async function that sends one message is enough.
   * @throws MessengerError `INVALID_OPTION` that names the option, its range and the value.
   */
  constructor(store: Store, publisher: Publisher | PublishFunction, options: MessengerOptions = {}) {
    this.#settings = relaySettings(store, publisher, options);
  }

  /** The current state of publishing to the broker. */
  get circuit(): CircuitStatus {
    return circuitStatus(this.#settings);
  }

  /** The current state of the datastore. */
  get datastore(): DatastoreStatus {
    return datastoreStatus(this.#settings);
  }

  /**
   * Publishes the due messages that failed before, and one page of new messages.
   *
   * @returns how many messages the broker acknowledged. If the signal aborts, these are the messages that were
   *   acknowledged by then. If other relays hold the destination, the result is 0.
   * @throws PublishError if some messages were not acknowledged. It is thrown after the others are settled. Its `cause`
   *   is an `AggregateError` with one error for each failure. Also throws the store's own errors.
   */
  async publish({ signal }: MessengerCallOptions = {}): Promise<number> {
    const round = newRound();
    await withFeed(this.#settings, signal, (feed) => publishRound(feed, this.#settings, round, signal));
    const error = roundError(round);
    if (error) throw error;
    return round.acknowledged;
  }

  /**
   * Cleans once, according to the `cleanUp` option.
   *
   * @throws MessengerError `INVALID_OPTION` if `cleanUp` is not set. Also throws the store's own errors, such as a
   *   `CleaningError` from `PostgresStore`.
   */
  async clean({ signal }: MessengerCallOptions = {}): Promise<void> {
    const { cleanUp } = this.#settings;
    if (cleanUp === undefined) {
      throw new MessengerError(
        'INVALID_OPTION',
        'clean() needs the cleanUp option: the age in milliseconds from which published messages are deleted',
      );
    }
    await cleanOnce(this.#settings, cleanUp, signal);
  }

  /**
   * Publishes and cleans until the signal aborts, and then settles the messages in flight. The error logger receives
   * the broker's errors, and the store's errors during short outages.
   *
   * @throws FatalError if the store cannot be reached at start, or for longer than `storeOutageLimit`, or if its tables
   *   are missing or cannot be used by this library.
   */
  async start({ signal, onStarted }: StartOptions = {}): Promise<void> {
    await runRelay({ ...this.#settings, relay: uuidv7() }, signal ?? new AbortController().signal, onStarted);
  }
}

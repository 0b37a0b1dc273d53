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
  /** Once this signal aborts, the work ends after the messages in flight are settled. */
  signal?: AbortSignal;
}

/** The options of `start`. */
export interface StartOptions extends MessengerCallOptions {
  /** Called once, as soon as the relay has reached the store and can work on it. @default nothing is called */
  onStarted?: () => void;
}

/**
 * Publishes a store's messages, and cleans away the published ones. Each message is published at least once, and in
 * order per key. A message counts as published only when the broker has acknowledged it.
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

  /** The state of publishing to the broker at this moment. */
  get circuit(): CircuitStatus {
    return circuitStatus(this.#settings);
  }

  /** The state of the datastore at this moment. */
  get datastore(): DatastoreStatus {
    return datastoreStatus(this.#settings);
  }

  /**
   * Publishes once: the due messages that failed before, and one page of new messages.
   *
   * @returns how many messages the broker acknowledged; 0 also while another relay holds the destination. If the signal
   *   aborts, how many were acknowledged by then.
   * @throws PublishError if some messages were not acknowledged, after the others are settled. Its `cause` is an
   *   `AggregateError` with an error for each. Otherwise the store's own errors.
   */
  async publish({ signal }: MessengerCallOptions = {}): Promise<number> {
    const round = newRound();
    await withFeed(this.#settings, signal, (feed) => publishRound(feed, this.#settings, round, signal));
    const error = roundError(round);
    if (error) throw error;
    return round.acknowledged;
  }

  /**
   * Cleans once, as the option `cleanUp` says.
   *
   * @throws MessengerError `INVALID_OPTION` if that option was not given. Otherwise the store's own errors, such as a
   *   `CleaningError` from `PostgresStore`.
   */
  async clean({ signal }: MessengerCallOptions = {}): Promise<void> {
    const { cleanUp } = this.#settings;
    if (cleanUp === undefined) {
      throw new MessengerError(
        'INVALID_OPTION',
        'clean() needs the option cleanUp: the age in milliseconds from which published messages are deleted',
      );
    }
    await cleanOnce(this.#settings, cleanUp, signal);
  }

  /**
   * Publishes and cleans until the signal aborts and the messages in flight are settled. Errors of the broker and short
   * outages of the store go to the error logger.
   *
   * @throws FatalError if the store cannot be reached at start, or for longer than `storeOutageLimit`, or if its tables
   *   are missing or this library cannot work on them.
   */
  async start({ signal, onStarted }: StartOptions = {}): Promise<void> {
    await runRelay({ ...this.#settings, relay: uuidv7() }, signal ?? new AbortController().signal, onStarted);
  }
}

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

/** What a call can be told. */
export interface MessengerCallOptions {
  /** Ends the work after what is in flight is settled. */
  signal?: AbortSignal;
}

/** What `start` can be told. */
export interface StartOptions extends MessengerCallOptions {
  /** Called once, as soon as the store was reached and can be worked on. @default nobody is told */
  onStarted?: () => void;
}

/**
 * Publishes the messages of a store, and cleans the published ones away: at least once, in order per
 * key, nothing completed before the broker's acknowledgement.
 *
 * When the process dies, at most `publishBatchSize` times `pipelineDepth` messages are published again:
 * those that were being published or settled.
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
   * @param publisher Sends messages to the broker; an async function that sends one is enough.
   * @throws MessengerError `INVALID_OPTION` that names the option, its range and the value.
   */
  constructor(store: Store, publisher: Publisher | PublishFunction, options: MessengerOptions = {}) {
    this.#settings = relaySettings(store, publisher, options);
  }

  /** How publishing to the broker does, at this moment. */
  get circuit(): CircuitStatus {
    return circuitStatus(this.#settings);
  }

  /** How the datastore does, at this moment. */
  get datastore(): DatastoreStatus {
    return datastoreStatus(this.#settings);
  }

  /**
   * Publishes once: what is due of the messages that failed before, and one page of new ones.
   *
   * @returns how many messages the broker acknowledged; 0 also while another relay holds the destination. Once the
   *   signal aborts, how many were acknowledged by then.
   * @throws PublishError when some were not, after the rest is settled: its `cause` is an `AggregateError`
   *   with an error for each. Otherwise the store's own errors.
   */
  async publish({ signal }: MessengerCallOptions = {}): Promise<number> {
    const round = newRound();
    await withFeed(this.#settings, signal, (feed) => publishRound(feed, this.#settings, round, signal));
    const error = roundError(round);
    if (error) throw error;
    return round.acknowledged;
  }

  /**
   * Cleans once, by the option `cleanUp`.
   *
   * @throws MessengerError `INVALID_OPTION` when that option was not given; otherwise the store's own
   *   errors, such as a `CleaningError` of `PostgresStore`.
   */
  async clean({ signal }: MessengerCallOptions = {}): Promise<void> {
    const { cleanUp } = this.#settings;
    if (cleanUp === undefined) {
      throw new MessengerError(
        'INVALID_OPTION',
        'clean() needs the option cleanUp: how old, in milliseconds, a published message has to be',
      );
    }
    await cleanOnce(this.#settings, cleanUp, signal);
  }

  /**
   * Publishes, and cleans, until the signal aborts and what is in flight is settled. Errors of the
   * broker and short outages of the store go to the error logger.
   *
   * @throws FatalError when the store cannot be reached at start, or for longer than `storeOutageLimit`,
   *   or when its tables are missing or not what this library can work on.
   */
  async start({ signal, onStarted }: StartOptions = {}): Promise<void> {
    await runRelay({ ...this.#settings, relay: uuidv7() }, signal ?? new AbortController().signal, onStarted);
  }
}

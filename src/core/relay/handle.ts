/// <reference lib="esnext.disposable" preserve="true" />
import type { CircuitStatus } from '../publish/circuit-breaker.js';
import { textOf } from '../util/error-text.js';
import { FatalError, hasCode, toError } from '../errors.js';
import type { MessengerOptions } from './options.js';
import type { Publisher, PublishFunction } from '../contracts/publisher.js';
import type { RelaySettings } from './settings.js';
import { circuitStatus, datastoreStatus, type DatastoreStatus } from './status.js';
import { runRelay } from './supervisor.js';
import { uuidv7 } from '../util/uuid.js';

/** The options of a relay. They are the options of a `Messenger` without `topics`, which come from the outbox. */
export interface OutboxRelayOptions extends Omit<MessengerOptions, 'topics'> {
  /** Sends messages to the broker. An async function that sends one message is enough. */
  readonly publisher: Publisher | PublishFunction;
  /** Ends the relay when it aborts, as `stop` does. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A relay that runs in the application's process. If you declare it with `await using`, it ends at the end of its
 * scope.
 */
export interface Relay extends AsyncDisposable {
  /**
   * Resolves when the relay has ended. Rejects with the `FatalError` that ended the relay. That error is also logged.
   */
  readonly ended: Promise<void>;
  /** The current state of publishing. */
  readonly circuit: CircuitStatus;
  /** The current state of the datastore. */
  readonly datastore: DatastoreStatus;
  /**
   * Stops the relay. It finishes the work in flight that is answered within `stopTimeout`, and then resolves.
   * @throws the `FatalError` that ended the relay, if it had already ended with one.
   */
  stop(): Promise<void>;
}

/** Starts a relay. Resolves when the relay has reached the store. @throws FatalError if it cannot reach the store. */
export async function started(settings: RelaySettings, signal: AbortSignal | undefined): Promise<Relay> {
  const controller = new AbortController();
  const onAbort = () => {
    controller.abort(signal?.reason);
  };
  if (signal?.aborted === true) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  let ended!: Promise<void>;
  const reached = new Promise<void>((resolve) => {
    ended = runRelay({ ...settings, relay: uuidv7() }, controller.signal, resolve).finally(() => {
      signal?.removeEventListener('abort', onAbort);
    });
  });
  await Promise.race([reached, ended]);
  // If the application does not wait for `ended`, a rejection must not end the process, but it must be logged.
  ended.catch((error: unknown) => {
    settings.errorLogger.error(toError(error));
  });
  const stop = () => {
    controller.abort();
    return ended;
  };
  return {
    ended,
    get circuit() {
      return circuitStatus(settings);
    },
    get datastore() {
      return datastoreStatus(settings);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * Waits for work that must be done before a relay starts.
 * @throws FatalError if the store cannot be reached or used.
 */
export async function reaching(work: Promise<void> | undefined): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (hasCode(error, 'UNKNOWN_DESTINATION')) throw error;
    const can = hasCode(error, 'SCHEMA_MISMATCH', 'UNSUPPORTED', 'NOT_ALLOWED') ? 'used' : 'reached';
    throw new FatalError(`the datastore cannot be ${can}: ${textOf(error)}`, { cause: error });
  }
}

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

/** How a relay is started: as a `Messenger`, its topics as they are defined. */
export interface OutboxRelayOptions extends Omit<MessengerOptions, 'topics'> {
  /** Sends messages to the broker; an async function that sends one is enough. */
  readonly publisher: Publisher | PublishFunction;
  /** Ends the relay, as `stop` does. */
  readonly signal?: AbortSignal | undefined;
}

/** A relay that runs beside the application. With `await using` it ends where its scope does. */
export interface Relay extends AsyncDisposable {
  /** Settles when the relay has ended: rejects with the `FatalError` for which it could not go on, which is logged too. */
  readonly ended: Promise<void>;
  /** How publishing does, at this moment. */
  readonly circuit: CircuitStatus;
  /** How the datastore does, at this moment. */
  readonly datastore: DatastoreStatus;
  /** Finishes what is in flight, as far as that answers within `stopTimeout`, and resolves then. @throws the `FatalError` that ended it before. */
  stop(): Promise<void>;
}

/** Starts a relay. Resolves when it has reached the store. @throws FatalError where it does not. */
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
  // Maybe nobody waits for it: that must not end the process, and somebody must know.
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

/** What a start waits for before it has reached the store. @throws FatalError where that cannot be reached. */
export async function reaching(work: Promise<void> | undefined): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (hasCode(error, 'UNKNOWN_DESTINATION')) throw error;
    const can = hasCode(error, 'SCHEMA_MISMATCH', 'UNSUPPORTED', 'NOT_ALLOWED') ? 'worked on' : 'reached';
    throw new FatalError(`the datastore cannot be ${can}: ${textOf(error)}`, { cause: error });
  }
}

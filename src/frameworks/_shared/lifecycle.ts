import type { CircuitStatus } from '../../core/publish/circuit-breaker.js';
import { MessengerError, toError } from '../../core/errors.js';
import type { DatastoreStatus } from '../../core/relay/status.js';
import type { OutboxRelayOptions, Relay } from '../../core/relay/handle.js';
import { hasMethods } from '../../core/util/options.js';

/** The part of an `Outbox` that runs relays, for an outbox with any topics. */
export interface RelaySource {
  relay(options: OutboxRelayOptions): Promise<Relay>;
}

/** The options of an application's relay. There is no `signal`, because the relay ends with its application. */
export type HostedRelayOptions = Omit<OutboxRelayOptions, 'signal'>;

/** How many milliseconds a call of the publisher may take before `publishing` becomes `false`. */
const SLOW = 10_000;

/** The state of an application's relay at this moment. In JSON, errors have only their `code` and `kind`. */
export interface RelayHealth {
  /**
   * `true` if the application needs no restart. It is `false` before the relay has started and after it has ended. It
   * stays `true` while the broker or the datastore is down, because the application can continue, and a restart would
   * not help. Use it for liveness and readiness checks.
   */
  readonly ok: boolean;
  /**
   * Whether messages are getting through, as far as a started relay can tell. It is `false` while `circuit` is not
   * closed, while the publisher has not answered a call for ten seconds (`circuit.waitingSince`), while `datastore` is
   * failing, and after the relay has ended. Use it for alerts.
   */
  readonly publishing?: boolean;
  /** `none`: this application runs no relay. `failed`: the relay did not start, or it ended with `error`. */
  readonly status: 'none' | 'starting' | 'running' | 'failed' | 'stopped';
  /** Only once the relay has started. */
  readonly circuit?: CircuitStatus;
  /** Only once the relay has started. */
  readonly datastore?: DatastoreStatus;
  /** The error that made the relay fail. */
  readonly error?: Error;
}

/** A relay with the life cycle of a framework. Every method can be called twice. */
export interface HostedRelay {
  /** Resolves when the relay has reached the store. @throws the errors that `Outbox.relay` throws. */
  readonly start: () => Promise<void>;
  /**
   * Finishes the messages that are in flight, as far as the broker answers within `stopTimeout`. Never rejects, because
   * a failed relay has already reported its error, and the application closes anyway.
   */
  readonly stop: () => Promise<void>;
  readonly health: () => RelayHealth;
  /** Settles when a started relay has ended. Rejects with the error that ended it, unless it was stopped. */
  readonly ended: () => Promise<void>;
}

/**
 * Creates an application's relay, for the hooks of its framework. Without `options`, there is no relay, and the
 * application only stores messages. A relay that ends with an error reports it to its `errorLogger`, as every relay
 * does.
 *
 * @throws MessengerError `INVALID_OPTION` if `outbox` is not an outbox.
 */
export function hostedRelay(outbox: RelaySource, options: HostedRelayOptions | undefined): HostedRelay {
  if (!hasMethods(outbox, 'relay')) {
    throw new MessengerError('INVALID_OPTION', 'outbox must be an outbox that defineOutbox returned');
  }
  const stopping = new AbortController();
  let state: Pick<RelayHealth, 'status' | 'error'> = { status: options === undefined ? 'none' : 'starting' };
  let relay: Relay | undefined;
  let started: Promise<void> | undefined;

  async function run(relayOptions: HostedRelayOptions): Promise<void> {
    try {
      relay = await outbox.relay({ ...relayOptions, signal: stopping.signal });
    } catch (error) {
      state = { status: 'failed', error: toError(error) };
      throw error;
    }
    state = { status: 'running' };
    relay.ended.then(
      () => (state = { status: 'stopped' }),
      (thrown: unknown) => {
        state = { status: 'failed', error: toError(thrown) };
      },
    );
  }

  return {
    start: () => (started ??= options === undefined ? Promise.resolve() : run(options)),
    async stop() {
      stopping.abort();
      // The caller of `start` got the error if the start failed, and the logger got later errors.
      await started?.catch(() => undefined);
      await relay?.ended.catch(() => undefined);
    },
    health: () =>
      withCodes({
        ok: state.status === 'running' || state.status === 'none',
        ...state,
        ...(relay && statusOf(relay, state.status === 'running')),
      }),
    ended: () => relay?.ended ?? Promise.resolve(),
  };
}

function statusOf({ circuit, datastore }: Relay, isRunning: boolean) {
  const { state, waitingSince } = circuit;
  const isSlow = waitingSince !== undefined && Date.now() - waitingSince.getTime() >= SLOW;
  return {
    publishing: isRunning && state === 'closed' && !isSlow && datastore.state === 'working',
    circuit,
    datastore,
  };
}

/**
 * Reduces the errors in a health object to their `code` and `kind` when it is converted to JSON. Strangers may read the
 * JSON, and other fields of an error may be secret or circular.
 */
export function withCodes<Health extends RelayHealth>(health: Health): Health {
  const toJSON = (): unknown => {
    function replace(this: Readonly<Record<string, unknown>>, key: string, value: unknown): unknown {
      // This is the value before its own `toJSON` was called.
      const error = this[key];
      if (!(error instanceof Error)) return value;
      const { code, kind } = error as { code?: unknown; kind?: unknown };
      return { ...(typeof code === 'string' && { code }), ...(typeof kind === 'string' && { kind }) };
    }
    return JSON.parse(JSON.stringify({ ...health }, replace));
  };
  // `toJSON` is not enumerable, so that a copy contains the errors themselves.
  return Object.defineProperty(health, 'toJSON', { value: toJSON });
}

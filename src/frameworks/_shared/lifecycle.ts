import type { CircuitStatus } from '../../core/publish/circuit-breaker.js';
import { MessengerError, toError } from '../../core/errors.js';
import type { DatastoreStatus } from '../../core/relay/status.js';
import type { OutboxRelayOptions, Relay } from '../../core/relay/handle.js';
import { hasMethods } from '../../core/util/options.js';

/** What runs relays: any `Outbox`, whatever its topics. */
export interface RelaySource {
  relay(options: OutboxRelayOptions): Promise<Relay>;
}

/** How the relay of an application is started. It has no `signal`: it ends with its application. */
export type HostedRelayOptions = Omit<OutboxRelayOptions, 'signal'>;

/** How long a call of the publisher may take before messages no longer count as getting through. Milliseconds. */
const SLOW = 10_000;

/** How the relay of an application does, at this moment. As JSON it has no more of errors than `code` and `kind`. */
export interface RelayHealth {
  /**
   * Whether there is nothing that a restart would help: `false` before the relay has started and once it has ended.
   * While the broker or the datastore is down it is `true`: the application can go on, and a restart mends nothing. So
   * it is what liveness and readiness are asked of.
   */
  readonly ok: boolean;
  /**
   * Of a relay that has started, whether messages get through, as far as it knows: `false` while `circuit` is not
   * closed, while the publisher has not answered a call for ten seconds (`circuit.waitingSince`), while `datastore` is
   * failing, and once the relay has ended. It is what alerts are made of.
   */
  readonly publishing?: boolean;
  /** `none`: this application runs no relay. `failed`: it did not start, or it ended, with `error`. */
  readonly status: 'none' | 'starting' | 'running' | 'failed' | 'stopped';
  /** Of a relay that has started. */
  readonly circuit?: CircuitStatus;
  /** Of a relay that has started. */
  readonly datastore?: DatastoreStatus;
  /** What the relay failed for. */
  readonly error?: Error;
}

/** A relay with the life cycle that frameworks have. None of it throws for being called twice. */
export interface HostedRelay {
  /** Resolves when the relay has reached the store. @throws what `Outbox.relay` does. */
  readonly start: () => Promise<void>;
  /** Finishes what is in flight, as far as that answers within `stopTimeout`. Never rejects: a relay that failed has told so, and an application closes anyway. */
  readonly stop: () => Promise<void>;
  readonly health: () => RelayHealth;
  /** Once it has started: settles when it has ended. Rejects with what it ended for, unless it was told to. */
  readonly ended: () => Promise<void>;
}

/**
 * The relay of an application, for the hooks of its framework. Without options there is none, and an application only
 * stores messages. One that ends with an error tells its `errorLogger`, as every relay.
 *
 * @throws MessengerError `INVALID_OPTION` where `outbox` is none.
 */
export function hostedRelay(outbox: RelaySource, options: HostedRelayOptions | undefined): HostedRelay {
  if (!hasMethods(outbox, 'relay')) {
    throw new MessengerError('INVALID_OPTION', 'outbox must be an outbox, as defineOutbox makes it');
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
      // Whoever started it has been told of its failures, and the logger of later ones.
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

/** Has a health tell no more of errors, as JSON, than their codes: strangers may read it, and fields may be secret or circular. */
export function withCodes<Health extends RelayHealth>(health: Health): Health {
  const toJSON = (): unknown => {
    function replace(this: Readonly<Record<string, unknown>>, key: string, value: unknown): unknown {
      // As it was before its own `toJSON`.
      const error = this[key];
      if (!(error instanceof Error)) return value;
      const { code, kind } = error as { code?: unknown; kind?: unknown };
      return { ...(typeof code === 'string' && { code }), ...(typeof kind === 'string' && { kind }) };
    }
    return JSON.parse(JSON.stringify({ ...health }, replace));
  };
  // Not enumerable: whoever copies it has the errors themselves.
  return Object.defineProperty(health, 'toJSON', { value: toJSON });
}

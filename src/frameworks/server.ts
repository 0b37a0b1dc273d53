/**
 * The relay beside a Node.js server: Express, Hono on Node.js, Koa, or plain `node:http`.
 *
 * @module
 */
import { toError } from '../core/errors.js';
import { hostedRelay, type HostedRelayOptions, type RelayHealth, type RelaySource } from './_shared/lifecycle.js';
import { checkKeys, type KeysOf } from '../core/util/options.js';

export type { RelayHealth } from './_shared/lifecycle.js';

/** The slice of a `node:http` server that is used. */
export interface NodeServer {
  readonly listening: boolean;
  keepAliveTimeout?: number;
  once(event: string, listener: (error?: unknown) => void): unknown;
  off(event: string, listener: (error?: unknown) => void): unknown;
  close(): unknown;
}

/** A server, and the relay beside it. */
export interface ServiceOptions<Server extends NodeServer> {
  readonly outbox: RelaySource;
  readonly relay: HostedRelayOptions;
  /** Starts the server: called once the relay runs, so that nothing listens without one. */
  readonly listen: () => Server | Promise<Server>;
}

/** A server that listens, and its relay. With `await using` both end where the scope does. */
export interface Service<Server extends NodeServer> extends AsyncDisposable {
  readonly server: Server;
  readonly health: () => RelayHealth;
  /**
   * Settles when the server is closed and the relay has ended; rejects as soon as the relay cannot go on, with its
   * `FatalError`. The server goes on then, and what it stores waits: wait for this, so that the process ends.
   */
  readonly ended: Promise<void>;
  /**
   * Stops accepting, waits for the requests in flight, and then lets the relay finish what it publishes. Connections
   * that do not end by themselves, such as those of WebSockets, are for the application to close.
   */
  readonly stop: () => Promise<void>;
}

/**
 * Starts a relay, then a server. When the server closes, whoever closed it, the relay stops too. No handlers of
 * signals are installed.
 *
 * @throws FatalError when the relay cannot start: nothing was listened to then; MessengerError `INVALID_OPTION`;
 *   and what `listen` throws or the server emits instead of listening: the relay was stopped then.
 *
 * @example
 * ```ts
 * const service = await withRelay({ outbox, relay: { publisher }, listen: () => app.listen(3000) });
 * process.once('SIGTERM', () => void service.stop());
 * await service.ended;
 * await pool.end();
 * ```
 */
export async function withRelay<Server extends NodeServer>(options: ServiceOptions<Server>): Promise<Service<Server>> {
  checkKeys(options, { outbox: true, relay: true, listen: true } satisfies KeysOf<ServiceOptions<Server>>);
  const relay = hostedRelay(options.outbox, options.relay);
  await relay.start();
  try {
    const server = await options.listen();
    const closed = new Promise<unknown>((resolve) => server.once('close', resolve)).then(relay.stop);
    await listening(server);
    const stop = () => {
      // Not to wait for connections on which nothing more comes: read when the answer of the last request has gone.
      server.keepAliveTimeout = 1;
      server.close();
      return closed;
    };
    const ended = relay.ended().then(() => closed);
    // Its logger was told: whoever does not wait for it need not know.
    ended.catch(() => undefined);
    return { server, health: relay.health, ended, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await relay.stop();
    throw error;
  }
}

async function listening(server: NodeServer): Promise<void> {
  if (server.listening) return;
  let onError: (error: unknown) => void = () => undefined;
  await new Promise<unknown>((resolve, reject) => {
    onError = (error) => {
      reject(toError(error));
    };
    server.once('listening', resolve);
    server.once('error', onError);
  });
  // What it emits later is the application's to hear.
  server.off('error', onError);
}

/**
 * Runs a relay alongside a Node.js server: Express, Hono on Node.js, Koa, or plain `node:http`.
 *
 * @module
 */
import { toError } from '../core/errors.js';
import { hostedRelay, type HostedRelayOptions, type RelayHealth, type RelaySource } from './_shared/lifecycle.js';
import { checkKeys, type KeysOf } from '../core/util/options.js';

export type { RelayHealth } from './_shared/lifecycle.js';

/** The part of a `node:http` server that `withRelay` uses. */
export interface NodeServer {
  readonly listening: boolean;
  keepAliveTimeout?: number;
  once(event: string, listener: (error?: unknown) => void): unknown;
  off(event: string, listener: (error?: unknown) => void): unknown;
  close(): unknown;
}

/** The options of `withRelay`: a server, and the relay that runs alongside it. */
export interface ServiceOptions<Server extends NodeServer> {
  readonly outbox: RelaySource;
  readonly relay: HostedRelayOptions;
  /** Starts the server. Called after the relay has started, so that no server listens without a relay. */
  readonly listen: () => Server | Promise<Server>;
}

/** A server that is listening, and its relay. With `await using`, both stop at the end of the scope. */
export interface Service<Server extends NodeServer> extends AsyncDisposable {
  readonly server: Server;
  readonly health: () => RelayHealth;
  /**
   * Settles when the server is closed and the relay has ended. Rejects with the relay's `FatalError` as soon as the
   * relay cannot continue. The server then continues to run, and the messages that it stores wait. Await this promise,
   * so that the process ends in this case.
   */
  readonly ended: Promise<void>;
  /**
   * Stops accepting connections, waits for the requests in flight, and then lets the relay finish what it is
   * publishing. The application must close connections that do not end by themselves, such as WebSockets.
   */
  readonly stop: () => Promise<void>;
}

/**
 * Starts a relay, and then a server. When the server closes, for whatever reason, the relay stops too. No signal
 * handlers are installed.
 *
 * @throws FatalError if the relay cannot start. No server is listening then. MessengerError `INVALID_OPTION`. Also
 *   throws the error that `listen` throws, or that the server emits instead of listening. The relay has been stopped
 *   then.
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
      // Do not wait for idle connections. The server reads this timeout when the response to the last request has been
      // sent.
      server.keepAliveTimeout = 1;
      server.close();
      return closed;
    };
    const ended = relay.ended().then(() => closed);
    // The relay's logger has the error, so nobody has to wait for this promise.
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
  // The application listens for later errors.
  server.off('error', onError);
}

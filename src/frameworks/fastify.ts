/**
 * The outbox as a plugin of Fastify: `app.register(outboxPlugin, { outbox, relay: { publisher } })`.
 *
 * @module
 */
import { hostedRelay, type HostedRelayOptions, type RelaySource } from './_shared/lifecycle.js';
import { checkKeys, type KeysOf } from '../core/util/options.js';

export type { RelayHealth } from './_shared/lifecycle.js';

/** The slice of Fastify that is used. */
export interface FastifyApp {
  decorate(name: string, value: unknown): unknown;
  addHook(name: 'onReady' | 'onClose' | 'preClose', hook: () => Promise<void>): unknown;
}

/** Of Avvio, which boots and closes Fastify: adds what is closed next. */
interface Closing {
  onClose?(hook: () => Promise<void>): unknown;
}

/** What the plugin is registered with. */
export interface OutboxPluginOptions {
  /** Becomes `app.outbox`. */
  readonly outbox: RelaySource;
  /** The relay that runs beside this server. `errorLogger: app.log` has it log there. @default none */
  readonly relay?: HostedRelayOptions;
}

/** What Fastify itself takes in the options of a plugin. */
const FASTIFY_KEYS = { prefix: true, logLevel: true, logSerializers: true } as const;
const KEYS = { outbox: true, relay: true } satisfies KeysOf<OutboxPluginOptions>;

/**
 * Decorates the server with `outbox` and with `outboxHealth()`, which returns a `RelayHealth`; starts the relay when
 * the server becomes ready, and stops it when it is closed: after the last request, and before what other plugins
 * close, such as the database, wherever they are registered. For Fastify 4.20 and newer.
 *
 * `ready()` and `listen()` reject with the `FatalError` of a relay that cannot start. Then `close()` the server.
 *
 * @throws MessengerError `INVALID_OPTION` from `register`.
 *
 * @example
 * ```ts
 * declare module 'fastify' {
 *   interface FastifyInstance {
 *     outbox: typeof outbox;
 *     outboxHealth: () => RelayHealth;
 *   }
 * }
 * app.register(outboxPlugin, { outbox, relay: { publisher, errorLogger: app.log } });
 * app.get('/health', (_, reply) => reply.code(app.outboxHealth().ok ? 200 : 503).send(app.outboxHealth()));
 * ```
 */
export const outboxPlugin = Object.assign(
  async (app: FastifyApp, options: OutboxPluginOptions): Promise<void> => {
    checkKeys(options, { ...KEYS, ...FASTIFY_KEYS });
    const relay = hostedRelay(options.outbox, options.relay);
    app.decorate('outbox', options.outbox);
    app.decorate('outboxHealth', relay.health);
    app.addHook('onReady', relay.start);
    app.addHook('onClose', relay.stop);
    // What is added last is closed first, so a database that is registered after this plugin would be closed before it.
    // This hook runs when nothing can be added any more, and while the server waits for its last request: what is
    // added now is closed next. By `addHook` it would be too late.
    app.addHook('preClose', async () => {
      (app as Closing).onClose?.(relay.stop);
    });
  },
  {
    // As fastify-plugin does: what is decorated is seen by the whole server, not by children of the plugin alone.
    [Symbol.for('skip-override')]: true,
    // Others wait for it by this name: `fp(plugin, { dependencies: ['messenger-outbox'] })`.
    [Symbol.for('plugin-meta')]: { name: 'messenger-outbox' },
  },
);

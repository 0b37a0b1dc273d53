/**
 * The outbox as a Fastify plugin: `app.register(outboxPlugin, { outbox, relay: { publisher } })`.
 *
 * @module
 */
import { hostedRelay, type HostedRelayOptions, type RelaySource } from './_shared/lifecycle.js';
import { checkKeys, type KeysOf } from '../core/util/options.js';

export type { RelayHealth } from './_shared/lifecycle.js';

/** The part of Fastify that the plugin uses. */
export interface FastifyApp {
  decorate(name: string, value: unknown): unknown;
  addHook(name: 'onReady' | 'onClose' | 'preClose', hook: () => Promise<void>): unknown;
}

/** The part of Avvio that adds a hook for closing. Avvio boots and closes Fastify. */
interface Closing {
  onClose?(hook: () => Promise<void>): unknown;
}

/** The options of the plugin. */
export interface OutboxPluginOptions {
  /** The outbox, which becomes `app.outbox`. */
  readonly outbox: RelaySource;
  /** The relay that runs alongside this server. With `errorLogger: app.log`, it logs to Fastify's log. @default none */
  readonly relay?: HostedRelayOptions;
}

/** The options of a plugin that Fastify itself reads. */
const FASTIFY_KEYS = { prefix: true, logLevel: true, logSerializers: true } as const;
const KEYS = { outbox: true, relay: true } satisfies KeysOf<OutboxPluginOptions>;

/**
 * Decorates the server with `outbox` and with `outboxHealth()`, which returns a `RelayHealth`. Starts the relay when
 * the server becomes ready, and stops it when the server closes. The relay stops after the last request, and before
 * other plugins close their resources, such as the database, wherever these plugins are registered. Requires Fastify
 * 4.20 or newer.
 *
 * If the relay cannot start, `ready()` and `listen()` reject with its `FatalError`. Call `close()` then.
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
    // Fastify runs the close hooks in reverse order, so a database that is registered after this plugin would be closed
    // before the relay. This hook runs when no plugin can be added any more, while the server waits for its last
    // request. A close hook that is added now runs next. `addHook` would be too late.
    app.addHook('preClose', async () => {
      (app as Closing).onClose?.(relay.stop);
    });
  },
  {
    // As in fastify-plugin, this makes the decorations available to the whole server, and not only to the plugin's
    // children.
    [Symbol.for('skip-override')]: true,
    // Other plugins can depend on this plugin by its name: `fp(plugin, { dependencies: ['messenger-outbox'] })`.
    [Symbol.for('plugin-meta')]: { name: 'messenger-outbox' },
  },
);

/**
 * The outbox as a module of Nest: `imports: [OutboxModule.forRoot({ outbox, relay: { publisher } })]`.
 *
 * @module
 */
import { MessengerError } from '../core/errors.js';
import {
  hostedRelay,
  type HostedRelay,
  type HostedRelayOptions,
  type RelayHealth,
  type RelaySource,
} from '../core/hosted-relay.js';
import { consoleErrorLogger } from '../core/logger.js';
import { checkKeys } from '../core/options.js';
import type { Topics } from '../core/topics.js';
import { consume, consumersOf, type NestSubscriber } from './nest/consumers.js';
import { messageHandlers, type Discovery } from './nest/on-message.js';

export type { RelayHealth } from '../core/hosted-relay.js';
export type { NestSubscriber } from './nest/consumers.js';
export { onMessageOf } from './nest/on-message.js';

/** Injects the outbox: `@Inject(OUTBOX) private readonly outbox: typeof outbox`. */
export const OUTBOX = Symbol.for('messenger-outbox.outbox');
/** Injects an `OutboxHealth`. */
export const OUTBOX_HEALTH = Symbol.for('messenger-outbox.health');
const OPTIONS = Symbol('options');
const STATE = Symbol('state');
const HOOKS = Symbol('hooks');
const DISCOVERY = Symbol('discovery');

/** How the relay and the subscribers of the application do. */
export interface OutboxHealth {
  /** `ok` only while no subscriber has failed either; `failures` has those that have, by name. */
  now(): RelayHealth & { readonly failures: Readonly<Record<string, Error>> };
  /** The same for `HealthCheckService` of Terminus 11. @param key @default 'outbox' */
  indicator(key?: string): Record<string, { status: 'up' | 'down' }>;
}

/** What the module works with. */
export interface OutboxModuleOptions {
  readonly outbox: RelaySource & { readonly topics: Topics };
  /** The relay that runs beside this application. `errorLogger: new Logger('outbox')` has Nest log. @default none */
  readonly relay?: HostedRelayOptions;
  /** Their messages go to the methods that `OnMessage` decorates. Each must have one. @default none */
  readonly subscribers?: readonly NestSubscriber[];
}

/** What Nest must know before it creates anything. */
export interface OutboxModuleWiring {
  /** `DiscoveryService` of `@nestjs/core`, to find the methods that `OnMessage` decorates. Needed with `subscribers`. */
  readonly discovery?: new (...injected: never[]) => Discovery;
}

/** The options as a provider of Nest makes them. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
export interface OutboxModuleFactory<Injected extends any[]> extends OutboxModuleWiring {
  /** Modules that `inject` is of. They are destroyed after the relay has stopped. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly imports?: any[];
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly inject?: any[];
  readonly useFactory: (...injected: Injected) => OutboxModuleOptions | Promise<OutboxModuleOptions>;
}

/** What both processes of the life cycle share. */
interface State {
  readonly relay: HostedRelay;
  readonly failures: Map<string, Error>;
}

/**
 * Makes the outbox injectable everywhere. The relay and the subscribers start at the end of the application's
 * bootstrap, which rejects when they can not; they stop, and what is in flight finishes, as the first thing of its
 * shutdown. On signals Nest shuts down only with `app.enableShutdownHooks()`.
 */
// eslint-disable-next-line @typescript-eslint/no-extraneous-class -- Nest knows modules by their class
export class OutboxModule {
  /** @returns the module to import, once. @throws MessengerError `INVALID_OPTION`, when the application starts. */
  static forRoot({ discovery, ...options }: OutboxModuleOptions & OutboxModuleWiring) {
    return OutboxModule.forRootAsync({ ...(discovery && { discovery }), useFactory: () => options });
  }

  /** As `forRoot`, of options that a factory makes of what is injected. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
  static forRootAsync<Injected extends any[]>(options: OutboxModuleFactory<Injected>) {
    const { imports = [], inject = [], useFactory, discovery } = options;
    const outbox = {
      module: OutboxProviders,
      global: true,
      imports,
      providers: [
        { provide: OPTIONS, inject, useFactory },
        { provide: OUTBOX, inject: [OPTIONS], useFactory: ({ outbox }: OutboxModuleOptions) => outbox },
        { provide: STATE, inject: [OPTIONS], useFactory: stateOf },
        { provide: OUTBOX_HEALTH, inject: [STATE], useFactory: healthOf },
      ],
      exports: [OPTIONS, OUTBOX, STATE, OUTBOX_HEALTH],
    };
    // Nest bootstraps global modules first and destroys them last: what runs must be of one that is not.
    return {
      module: OutboxModule,
      imports: [outbox],
      providers: [
        ...(discovery ? [{ provide: DISCOVERY, useClass: discovery }] : []),
        { provide: HOOKS, inject: [OPTIONS, STATE, ...(discovery ? [DISCOVERY] : [])], useFactory: hooksOf },
      ],
    };
  }
}

// eslint-disable-next-line @typescript-eslint/no-extraneous-class -- Nest knows modules by their class
class OutboxProviders {}

function stateOf(options: OutboxModuleOptions): State {
  checkKeys(options, ['outbox', 'relay', 'subscribers'] satisfies (keyof OutboxModuleOptions)[]);
  return { relay: hostedRelay(options.outbox, options.relay), failures: new Map() };
}

function healthOf({ relay, failures }: State): OutboxHealth {
  const now = () => {
    const health = relay.health();
    return { ...health, ok: health.ok && failures.size === 0, failures: Object.fromEntries(failures) };
  };
  return { now, indicator: (key = 'outbox') => ({ [key]: { status: now().ok ? 'up' : 'down' } }) };
}

/** Nest finds hooks by their names. */
function hooksOf(options: OutboxModuleOptions, { relay, failures }: State, discovery?: Discovery) {
  const { outbox, subscribers = [] } = options;
  const logger = options.relay?.errorLogger ?? consoleErrorLogger;
  const stopping = new AbortController();
  const { signal } = stopping;
  let consuming: Promise<void>[] = [];
  return {
    async onApplicationBootstrap() {
      if (subscribers.length > 0 && !discovery) {
        throw new MessengerError('INVALID_OPTION', 'subscribers need discovery: DiscoveryService of @nestjs/core');
      }
      const handlers = subscribers.length > 0 && discovery ? messageHandlers(discovery) : [];
      const consumers = consumersOf(outbox.topics, subscribers, handlers);
      await relay.start();
      consuming = consumers.map((consumer) => consume(consumer, { signal, failures, logger }));
    },
    async onModuleDestroy() {
      stopping.abort();
      await Promise.all([relay.stop(), ...consuming]);
    },
  };
}

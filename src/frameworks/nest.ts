/**
 * The outbox as a Nest module: `imports: [OutboxModule.forRoot({ outbox, relay: { publisher } })]`.
 *
 * @module
 */
import { ModulesContainer } from '@nestjs/core';
import type { Discovery } from './nest/discovery.js';
import { healthOf, hooksOf, stateOf, stopOf, type State } from './nest/lifecycle.js';
import type { OutboxModuleFactory, OutboxModuleOptions, OutboxModuleWiring } from './nest/options.js';
import { firstAndLast } from './nest/order.js';

export type { RelayHealth } from './_shared/lifecycle.js';
export type { NestSubscriber } from './nest/consumers.js';
export { onMessageOf } from './nest/on-message.js';
export type { OutboxHealth, OutboxModuleFactory, OutboxModuleOptions, OutboxModuleWiring } from './nest/options.js';

/** Injects the outbox: `@Inject(OUTBOX) private readonly messages: typeof outbox`. */
export const OUTBOX = Symbol.for('messenger-outbox.outbox');
/** Injects an `OutboxHealth`. */
export const OUTBOX_HEALTH = Symbol.for('messenger-outbox.health');
const OPTIONS = Symbol('options');
const STATE = Symbol('state');
const STOP = Symbol('stop');
const HOOKS = Symbol('hooks');
const DISCOVERY = Symbol('discovery');

/**
 * Makes the outbox injectable everywhere. The relay and the subscribers start as the last step of the application's
 * bootstrap, which rejects if they cannot start. They stop as the first step of its shutdown, and finish the messages
 * that are in flight, before any `onModuleDestroy` of the application. It does not matter where the module is imported.
 * Messages that requests store after that wait for the next relay. Nest shuts down on signals only with
 * `app.enableShutdownHooks()`.
 */
// eslint-disable-next-line @typescript-eslint/no-extraneous-class -- Nest knows modules by their class
export class OutboxModule {
  /** @returns the module. Import it only once. @throws MessengerError `INVALID_OPTION` when the application starts. */
  static forRoot({ discovery, ...options }: OutboxModuleOptions & OutboxModuleWiring) {
    return OutboxModule.forRootAsync({ ...(discovery && { discovery }), useFactory: () => options });
  }

  /** Like `forRoot`, with options that a factory creates from injected providers. */
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
        { provide: STOP, inject: [STATE], useFactory: stopOf },
      ],
      exports: [OPTIONS, OUTBOX, STATE, OUTBOX_HEALTH],
    };
    const modules = { token: ModulesContainer, optional: true };
    // Nest calls the hooks of one of these two modules first, and the hooks of the other module last (see
    // `firstAndLast`).
    return {
      module: OutboxModule,
      imports: [outbox],
      providers: [
        ...(discovery ? [{ provide: DISCOVERY, useClass: discovery }] : []),
        {
          provide: HOOKS,
          inject: [modules, OPTIONS, STATE, ...(discovery ? [DISCOVERY] : [])],
          useFactory: (all: ModulesContainer | undefined, ...given: [OutboxModuleOptions, State, Discovery?]) => {
            firstAndLast(all, STOP, HOOKS);
            return hooksOf(...given);
          },
        },
      ],
    };
  }
}

// eslint-disable-next-line @typescript-eslint/no-extraneous-class -- Nest knows modules by their class
class OutboxProviders {}

import type { HostedRelayOptions, RelayHealth, RelaySource } from '../_shared/lifecycle.js';
import type { ErrorLogger } from '../../core/contracts/logger.js';
import type { Topics } from '../../core/outbox/topics.js';
import type { NestSubscriber } from './consumers.js';
import type { Discovery } from './discovery.js';

/** The options of the module. */
export interface OutboxModuleOptions {
  readonly outbox: RelaySource & { readonly topics: Topics };
  /**
   * The relay that runs alongside this application. With `errorLogger: new Logger('outbox')`, Nest logs its errors.
   * @default none
   */
  readonly relay?: HostedRelayOptions;
  /**
   * Subscribers whose messages go to the methods that `OnMessage` decorates. Each must have at least one such method.
   * @default none
   */
  readonly subscribers?: readonly NestSubscriber[];
  /**
   * Receives the error when a subscriber fails or ends too early. With `new Logger('outbox')`, Nest logs it. Errors
   * from handlers go to the subscriber's own logger.
   * @default the relay's `errorLogger`, or else the console
   */
  readonly errorLogger?: ErrorLogger;
}

/** The options that Nest needs before it creates any provider. */
export interface OutboxModuleWiring {
  /**
   * `DiscoveryService` of `@nestjs/core`, which finds the methods that `OnMessage` decorates. Required with
   * `subscribers`. Without subscribers, a method that it finds is rejected.
   * @default none: methods that `OnMessage` decorates are not looked for
   */
  readonly discovery?: new (...injected: never[]) => Discovery;
}

/** A Nest provider that creates the module's options. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
export interface OutboxModuleFactory<Injected extends any[]> extends OutboxModuleWiring {
  /** The modules that export the providers in `inject`. They are destroyed after the relay has stopped. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly imports?: any[];
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly inject?: any[];
  readonly useFactory: (...injected: Injected) => OutboxModuleOptions | Promise<OutboxModuleOptions>;
}

/** The state of the application's relay and subscribers. */
export interface OutboxHealth {
  /**
   * Returns the relay's health. `ok` is `true` only if no subscriber has failed either. `failures` contains the errors
   * of the subscribers that have failed, keyed by name.
   */
  now(): RelayHealth & { readonly failures: Readonly<Record<string, Error>> };
  /** Returns the same state for the `HealthCheckService` of Terminus 11. @param key @default 'outbox' */
  indicator(key?: string): Record<string, { status: 'up' | 'down' }>;
}

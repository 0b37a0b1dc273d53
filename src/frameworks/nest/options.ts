import type { HostedRelayOptions, RelayHealth, RelaySource } from '../_shared/lifecycle.js';
import type { ErrorLogger } from '../../core/contracts/logger.js';
import type { Topics } from '../../core/outbox/topics.js';
import type { NestSubscriber } from './consumers.js';
import type { Discovery } from './discovery.js';

/** The options of the module. */
export interface OutboxModuleOptions {
  readonly outbox: RelaySource & { readonly topics: Topics };
  /**
   * The relay that runs beside this application. With `errorLogger: new Logger('outbox')`, Nest logs its errors.
   * @default none
   */
  readonly relay?: HostedRelayOptions;
  /**
   * Subscribers whose messages go to the methods that `OnMessage` decorates. Each must have at least one such method.
   * @default none
   */
  readonly subscribers?: readonly NestSubscriber[];
  /**
   * Gets the error when a subscriber failed, or ended too early. With `new Logger('outbox')`, Nest logs it. Errors of
   * handlers go to the logger of the subscriber itself.
   * @default that of the relay, or else the console
   */
  readonly errorLogger?: ErrorLogger;
}

/** What Nest must know before it creates anything. */
export interface OutboxModuleWiring {
  /**
   * `DiscoveryService` of `@nestjs/core`, which finds the methods that `OnMessage` decorates. Needed with
   * `subscribers`. Without subscribers, a method that it finds is refused.
   * @default none: methods that `OnMessage` decorates are not looked for
   */
  readonly discovery?: new (...injected: never[]) => Discovery;
}

/** The options, made by a provider of Nest. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
export interface OutboxModuleFactory<Injected extends any[]> extends OutboxModuleWiring {
  /** The modules that provide what `inject` names. They are destroyed after the relay has stopped. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly imports?: any[];
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any kind that Nest knows
  readonly inject?: any[];
  readonly useFactory: (...injected: Injected) => OutboxModuleOptions | Promise<OutboxModuleOptions>;
}

/** The state of the application's relay and subscribers. */
export interface OutboxHealth {
  /** `ok` only if no subscriber has failed either. `failures` has the errors of those that have, by name. */
  now(): RelayHealth & { readonly failures: Readonly<Record<string, Error>> };
  /** The same for `HealthCheckService` of Terminus 11. @param key @default 'outbox' */
  indicator(key?: string): Record<string, { status: 'up' | 'down' }>;
}

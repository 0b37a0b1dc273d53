import type { HostedRelayOptions, RelayHealth, RelaySource } from '../_shared/lifecycle.js';
import type { ErrorLogger } from '../../core/contracts/logger.js';
import type { Topics } from '../../core/outbox/topics.js';
import type { NestSubscriber } from './consumers.js';
import type { Discovery } from './discovery.js';

/** What the module works with. */
export interface OutboxModuleOptions {
  readonly outbox: RelaySource & { readonly topics: Topics };
  /** The relay that runs beside this application. `errorLogger: new Logger('outbox')` has Nest log. @default none */
  readonly relay?: HostedRelayOptions;
  /** Their messages go to the methods that `OnMessage` decorates. Each must have one. @default none */
  readonly subscribers?: readonly NestSubscriber[];
  /**
   * Gets why a subscriber failed, or ended too early: `new Logger('outbox')` has Nest log. What handlers fail with goes
   * to the logger of the subscriber itself.
   * @default that of the relay, else the console
   */
  readonly errorLogger?: ErrorLogger;
}

/** What Nest must know before it creates anything. */
export interface OutboxModuleWiring {
  /**
   * `DiscoveryService` of `@nestjs/core`, to find the methods that `OnMessage` decorates. Needed with `subscribers`;
   * without them, a method that it finds is refused.
   * @default none: what `OnMessage` decorates is not looked for
   */
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

/** How the relay and the subscribers of the application do. */
export interface OutboxHealth {
  /** `ok` only while no subscriber has failed either; `failures` has those that have, by name. */
  now(): RelayHealth & { readonly failures: Readonly<Record<string, Error>> };
  /** The same for `HealthCheckService` of Terminus 11. @param key @default 'outbox' */
  indicator(key?: string): Record<string, { status: 'up' | 'down' }>;
}

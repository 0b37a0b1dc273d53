import type { ModulesContainer } from '@nestjs/core';
import { MessengerError } from '../../core/errors.js';

/**
 * Changes the order in which Nest calls the hooks of the application's modules. Nest then begins with the module of one
 * provider, and ends with the module of another provider.
 *
 * Nest orders modules by their distance from the root module. When the application starts, Nest begins with the
 * farthest module. When the application stops, Nest uses the same order up to Nest 10, and the reverse order since Nest
 * 11. For modules with the same distance, the order of imports decides. So the connection pool of a neighbouring
 * module, or of the root module, could end before the relay has settled the messages that are in flight. No hook runs
 * before `onModuleDestroy`, and a module has no option that changes this order. Nest sets `distance` before it creates
 * providers, and reads it when it calls hooks, so a provider can change it.
 *
 * @throws MessengerError `INVALID_OPTION` if Nest does not provide its modules.
 */
export function firstAndLast(modules: ModulesContainer | undefined, first: symbol, last: symbol): void {
  const having = (provider: symbol) =>
    [...(modules?.values() ?? [])].filter(({ providers }) => providers.has(provider));
  if (having(first).length === 0 || having(last).length === 0) {
    throw new MessengerError(
      'INVALID_OPTION',
      'the application and messenger-outbox load two copies of @nestjs/core: install one (`npm ls @nestjs/core` shows them)',
    );
  }
  for (const module of having(first)) module.distance = Infinity;
  for (const module of having(last)) module.distance = -Infinity;
}

import type { ModulesContainer } from '@nestjs/core';
import { MessengerError } from '../../core/errors.js';

/**
 * Has Nest come to the module of one provider before all others, and to that of another one after them, when it calls
 * the hooks of the application's modules.
 *
 * Nest goes through modules by their distance from the root module: when it starts, the farthest first; when it stops,
 * the same way up to Nest 10, and the other way round since Nest 11. Among those of one distance the order of imports
 * decides. So the pool of a module beside ours, or of the root module, was ended before the relay had settled what was in
 * flight. No hook comes before `onModuleDestroy`, and nothing that a module can say of itself moves it in that order.
 * Nest sets `distance` before it creates providers, and reads it when it calls hooks: a provider can change it.
 *
 * @throws MessengerError `INVALID_OPTION` where Nest does not give its modules.
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

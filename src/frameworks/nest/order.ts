import type { ModulesContainer } from '@nestjs/core';
import { MessengerError } from '../../core/errors.js';

/**
 * When Nest calls the hooks of the application's modules, makes it begin with the module of one provider and end with
 * that of another.
 *
 * Nest goes through modules by their distance from the root module. When it starts, it begins with the farthest. When
 * it stops, it does the same up to Nest 10, and the reverse since Nest 11. Among modules of the same distance the order
 * of imports decides. So the pool of a module beside ours, or of the root module, could end before the relay had
 * settled what was in flight. No hook comes before `onModuleDestroy`, and a module has no option that changes this
 * order. Nest sets `distance` before it creates providers, and reads it when it calls hooks, so a provider can change
 * it.
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

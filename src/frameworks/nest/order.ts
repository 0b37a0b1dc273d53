import type { ModulesContainer } from '@nestjs/core';
import { MessengerError } from '../../core/errors.js';

/** Before the root module, whose distance is 1. */
const FIRST_TO_STOP = -Number.MAX_VALUE;

/**
 * Has Nest start the module that has this provider after all others, and stop it before them.
 *
 * Nest destroys modules by their distance from the root module, the root module first, and those of one distance in the
 * reverse order of their imports. So where a module stands in `imports` decided whether its pool was ended before the
 * relay had settled what was in flight, and the pool of the root module always was. No hook comes before
 * `onModuleDestroy`, and nothing else of a module's metadata says when it is destroyed: `distance` does, which Nest
 * itself sets on every module before it creates providers, and reads when it calls hooks.
 *
 * @throws MessengerError `INVALID_OPTION` where Nest does not give its modules.
 */
export function stopFirst(modules: ModulesContainer | undefined, provider: symbol): void {
  const ours = [...(modules?.values() ?? [])].filter(({ providers }) => providers.has(provider));
  if (ours.length === 0) {
    throw new MessengerError(
      'INVALID_OPTION',
      'the application and messenger-outbox load two copies of @nestjs/core: install one (`npm ls @nestjs/core` shows them)',
    );
  }
  for (const module of ours) module.distance = FIRST_TO_STOP;
}

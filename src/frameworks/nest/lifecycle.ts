import { MessengerError } from '../../core/errors.js';
import { hostedRelay, withCodes, type HostedRelay } from '../_shared/lifecycle.js';
import { consoleErrorLogger, type ErrorLogger } from '../../core/contracts/logger.js';
import { describe } from '../../core/util/describe.js';
import { checkKeys, hasMethods, type KeysOf } from '../../core/util/options.js';
import { consume, consumersOf } from './consumers.js';
import { messageHandlers, type Discovery } from './discovery.js';
import type { OutboxHealth, OutboxModuleOptions } from './options.js';

/** The relay and the subscribers. The hooks control them, and the health reports on them. */
export interface State {
  readonly relay: HostedRelay;
  /** The errors of subscribers that failed, keyed by the subscriber's name. */
  readonly failures: Map<string, Error>;
  /** Receives the errors of subscribers that failed. */
  readonly logger: ErrorLogger;
  /** Ends the subscribers. */
  readonly stopping: AbortController;
  /** One promise for each subscriber that has been started. */
  readonly consuming: Promise<void>[];
}

const KEYS = {
  outbox: true,
  relay: true,
  subscribers: true,
  errorLogger: true,
} satisfies KeysOf<OutboxModuleOptions>;

/** @throws MessengerError `INVALID_OPTION` */
export function stateOf(options: OutboxModuleOptions): State {
  checkKeys(options, KEYS);
  const { outbox, relay, errorLogger: logger = relay?.errorLogger ?? consoleErrorLogger } = options;
  if (!hasMethods(logger, 'error')) {
    const wanted = 'an object with an error method';
    throw new MessengerError('INVALID_OPTION', `errorLogger must be ${wanted}, got ${describe(logger)}`);
  }
  const stopping = new AbortController();
  return { relay: hostedRelay(outbox, relay), failures: new Map(), logger, stopping, consuming: [] };
}

export function healthOf({ relay, failures }: State): OutboxHealth {
  const now = () => {
    const health = relay.health();
    return withCodes({ ...health, ok: health.ok && failures.size === 0, failures: Object.fromEntries(failures) });
  };
  return { now, indicator: (key = 'outbox') => ({ [key]: { status: now().ok ? 'up' : 'down' } }) };
}

/** Nest finds hooks by their names. This hook can be called twice, and both calls resolve when everything has ended. */
export function stopOf({ relay, stopping, consuming }: State) {
  return {
    async onModuleDestroy() {
      stopping.abort();
      await Promise.all([relay.stop(), ...consuming]);
    },
  };
}

/** The hooks that start and stop the relay and the subscribers. */
export function hooksOf(options: OutboxModuleOptions, state: State, discovery?: Discovery) {
  const { outbox, subscribers = [] } = options;
  const { relay, failures, logger, consuming } = state;
  const { signal } = state.stopping;
  return {
    async onApplicationBootstrap() {
      if (subscribers.length > 0 && !discovery) {
        throw new MessengerError(
          'INVALID_OPTION',
          'subscribers need the discovery option: pass DiscoveryService from @nestjs/core',
        );
      }
      const handlers = discovery ? messageHandlers(discovery) : [];
      const consumers = consumersOf(outbox.topics, subscribers, handlers);
      await relay.start();
      consuming.push(...consumers.map((consumer) => consume(consumer, { signal, failures, logger })));
    },
    ...stopOf(state),
  };
}

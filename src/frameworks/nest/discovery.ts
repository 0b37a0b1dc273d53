import { MessengerError } from '../../core/errors.js';
import { marksOf, type Mark } from './on-message.js';

/** The part of Nest's `DiscoveryService` that is used. */
export interface Discovery {
  getProviders(): readonly Discovered[];
  getControllers(): readonly Discovered[];
}

/** The part of Nest's `InstanceWrapper` that is used. */
export interface Discovered {
  readonly instance: unknown;
  readonly isTransient: boolean;
  isDependencyTreeStatic(): boolean;
}

/** A method that handles a topic. */
export interface MessageHandler extends Pick<Mark, 'topic' | 'subscriber'> {
  /** `Class.method`, for errors. */
  readonly label: string;
  readonly handle: (payload: unknown, context: unknown) => unknown;
}

/**
 * Returns the decorated methods of every provider and controller.
 *
 * @throws MessengerError `INVALID_OPTION` for a request-scoped or transient class. A message is not a request, so the
 *   class must have exactly one instance.
 */
export function messageHandlers(discovery: Discovery): MessageHandler[] {
  const handlers = new Map<unknown, MessageHandler[]>();
  for (const found of [...discovery.getProviders(), ...discovery.getControllers()]) {
    const { instance } = found;
    const marks = marksOf(instance);
    if (marks.length === 0) continue;
    const { name: type } = (instance as object).constructor;
    if (found.isTransient || !found.isDependencyTreeStatic()) {
      throw new MessengerError(
        'INVALID_OPTION',
        `${type} handles messages, so it can be neither request-scoped nor transient`,
      );
    }
    // An alias provider has the same instance.
    handlers.set(
      instance,
      marks.map(({ name, topic, subscriber }) => ({
        topic,
        subscriber,
        label: `${type}.${String(name)}`,
        handle: (...given) => (instance as Record<typeof name, MessageHandler['handle']>)[name]?.(...given),
      })),
    );
  }
  return [...handlers.values()].flat();
}

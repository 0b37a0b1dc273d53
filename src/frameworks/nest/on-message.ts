import { MessengerError } from '../../core/errors.js';
import type { TopicContext } from '../../core/handlers.js';
import type { ParsedOf, Schemas, Topics } from '../../core/topics.js';

/** The slice of Nest's `DiscoveryService` that is used. */
export interface Discovery {
  getProviders(): readonly Discovered[];
  getControllers(): readonly Discovered[];
}

/** The slice of Nest's `InstanceWrapper` that is used. */
export interface Discovered {
  readonly instance: unknown;
  readonly isTransient: boolean;
  isDependencyTreeStatic(): boolean;
}

/** A method that handles a topic. */
export interface MessageHandler {
  readonly topic: string;
  /** Of the subscriber that it listens to, where there is more than one. */
  readonly subscriber: string | undefined;
  /** `Class.method`, for errors. */
  readonly label: string;
  readonly handle: (payload: unknown, context: unknown) => unknown;
}

type Marks = ReadonlyMap<string | symbol, Pick<MessageHandler, 'topic' | 'subscriber'>>;

/** Where a class keeps its marks: registered, so that two copies of this package know the same. */
const MARKS = Symbol.for('messenger-outbox.on-message');

/**
 * The decorator of methods that handle messages, for the topics of an application: what a method takes is checked
 * against its topic. `context.tx` is the transaction of the subscriber's inbox, if it has one.
 *
 * @returns a decorator that throws MessengerError `INVALID_OPTION` for a topic that is not there.
 *
 * @example
 * ```ts
 * export const OnMessage = onMessageOf(topics);
 *
 * class Billing {
 *   @OnMessage('order.created')
 *   async bill(order: Order, { message, tx }: TopicContext<PoolClient>) { … }
 * }
 * ```
 */
export function onMessageOf<S extends Schemas>(topics: Topics<S>) {
  return <Name extends keyof S & string>(topic: Name, options: { readonly subscriber?: string } = {}) => {
    if (!Object.hasOwn(topics, topic)) throw new MessengerError('INVALID_OPTION', `there is no topic ${topic}`);
    return <Method extends (payload: ParsedOf<S, Name>, context: TopicContext<never>) => unknown>(
      prototype: object,
      name: string | symbol,
      _descriptor: TypedPropertyDescriptor<Method>,
    ): void => {
      // On the prototype and by name, not on the function: decorators such as one of transactions replace that.
      const marks = new Map([...marksOf(prototype), [name, { topic, subscriber: options.subscriber }] as const]);
      Object.defineProperty(prototype, MARKS, { value: marks, configurable: true });
    };
  };
}

function marksOf(value: unknown): Marks {
  const marks = typeof value === 'object' ? (value as { [MARKS]?: unknown } | null)?.[MARKS] : undefined;
  return marks instanceof Map ? (marks as Marks) : new Map();
}

/**
 * The decorated methods of every provider and controller.
 *
 * @throws MessengerError `INVALID_OPTION` for a class of which there is not one instance: a message is no request.
 */
export function messageHandlers(discovery: Discovery): MessageHandler[] {
  const handlers = new Map<unknown, MessageHandler[]>();
  for (const found of [...discovery.getProviders(), ...discovery.getControllers()]) {
    const { instance } = found;
    const marks = [...marksOf(instance)];
    if (marks.length === 0) continue;
    const { name: type } = (instance as object).constructor;
    if (found.isTransient || !found.isDependencyTreeStatic()) {
      throw new MessengerError('INVALID_OPTION', `${type} handles messages: it can not be of a request, nor transient`);
    }
    // An alias has the same instance.
    handlers.set(
      instance,
      marks.map(([name, mark]) => ({
        ...mark,
        label: `${type}.${String(name)}`,
        handle: (...given) => (instance as Record<typeof name, MessageHandler['handle']>)[name]?.(...given),
      })),
    );
  }
  return [...handlers.values()].flat();
}

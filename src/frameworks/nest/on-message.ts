import { MessengerError } from '../../core/errors.js';
import type { TopicContext } from '../../core/outbox/subscribe.js';
import type { ParsedOf, Schemas, Topics } from '../../core/outbox/topics.js';

/** The record of a decorated method, which the decorator stores on the class. */
export interface Mark {
  readonly topic: string;
  /** The subscriber for which the method handles messages, if there is more than one. */
  readonly subscriber: string | undefined;
  /** The name of the method. */
  readonly name: string | symbol;
  /** The prototype of the class that has the method. */
  readonly prototype: object;
}

/**
 * The property that contains a class's marks. The symbol is registered, so that two copies of this package use the same
 * symbol.
 */
const MARKS = Symbol.for('messenger-outbox.on-message');

/**
 * Creates the decorator for methods that handle messages on an application's topics. The compiler checks the type of a
 * method's parameter against its topic. `context.tx` is the transaction of the subscriber's inbox, if it has one. A
 * method with many topics needs one decorator for each topic. A method that overrides another method inherits that
 * method's topics, unless it is decorated itself.
 *
 * @returns a decorator that throws MessengerError `INVALID_OPTION` for an unknown topic.
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
      if (typeof prototype === 'function') {
        throw new MessengerError(
          'INVALID_OPTION',
          `${prototype.name}.${String(name)} is static, but only methods of a provider's instance handle messages: make it an instance method`,
        );
      }
      // A method can have many marks. They do not include the marks of a method that it overrides.
      const others = marksOf(prototype).filter((mark) => mark.name !== name || mark.prototype === prototype);
      const marks: Mark[] = [...others, { prototype, name, topic, subscriber: options.subscriber }];
      // Store the marks on the prototype, by name, and not on the function, because other decorators, such as one for
      // transactions, replace the function.
      Object.defineProperty(prototype, MARKS, { value: marks, configurable: true });
    };
  };
}

/** Returns the marks that the decorator has stored on a prototype, also through an instance. */
export function marksOf(value: unknown): readonly Mark[] {
  const marks = typeof value === 'object' ? (value as { [MARKS]?: unknown } | null)?.[MARKS] : undefined;
  return Array.isArray(marks) ? (marks as Mark[]) : [];
}

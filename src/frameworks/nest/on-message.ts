import { MessengerError } from '../../core/errors.js';
import type { TopicContext } from '../../core/outbox/subscribe.js';
import type { ParsedOf, Schemas, Topics } from '../../core/outbox/topics.js';

/** What the decorator leaves at a class. */
export interface Mark {
  readonly topic: string;
  /** Of the subscriber that it listens to, where there is more than one. */
  readonly subscriber: string | undefined;
  /** Of the method. */
  readonly name: string | symbol;
  /** Of the class that has the method. */
  readonly prototype: object;
}

/** Where a class keeps its marks: registered, so that two copies of this package know the same. */
const MARKS = Symbol.for('messenger-outbox.on-message');

/**
 * The decorator of methods that handle messages, for the topics of an application: what a method takes is checked
 * against its topic. `context.tx` is the transaction of the subscriber's inbox, if it has one. A method of many
 * topics has one for each. A method that overrides another has that one's, unless it has its own.
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
      if (typeof prototype === 'function') {
        throw new MessengerError(
          'INVALID_OPTION',
          `${prototype.name}.${String(name)} is static: a provider's instance handles messages`,
        );
      }
      // A method can have many. Those of a method that it overrides are not among them.
      const others = marksOf(prototype).filter((mark) => mark.name !== name || mark.prototype === prototype);
      const marks: Mark[] = [...others, { prototype, name, topic, subscriber: options.subscriber }];
      // On the prototype and by name, not on the function: decorators such as one of transactions replace that.
      Object.defineProperty(prototype, MARKS, { value: marks, configurable: true });
    };
  };
}

/** What the decorator has left, of an instance too. */
export function marksOf(value: unknown): readonly Mark[] {
  const marks = typeof value === 'object' ? (value as { [MARKS]?: unknown } | null)?.[MARKS] : undefined;
  return Array.isArray(marks) ? (marks as Mark[]) : [];
}

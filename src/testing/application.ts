/**
 * For the tests of an application: what its transactions store, what would be published, and a broker.
 *
 * @module
 */
import type { Message } from '../core/contracts/message.js';
import type { DrainOptions } from '../core/relay/drain.js';
import { consoleErrorLogger, type ErrorLogger } from '../core/contracts/logger.js';
import { checkKeys, numberOption, type KeysOf, hasMethods } from '../core/util/options.js';
import type { Outbox } from '../core/outbox/outbox.js';
import type { Publisher } from '../core/contracts/publisher.js';
import type { Subscriber, Subscription } from '../core/contracts/subscriber.js';
import { destinationsOf, payloadOf, type ParsedOf, type Schemas } from '../core/outbox/topics.js';

/** A message as a test looks at it. */
export interface Sent<Name = string, Payload = unknown> {
  readonly topic: Name;
  readonly key: string | undefined;
  /** As a handler would get it: by the topic's schema. */
  readonly payload: Payload;
  readonly message: Message;
}

/** One of the topics' messages: told apart by its topic. */
export type SentOf<S extends Schemas> = { [Name in keyof S & string]: Sent<Name, ParsedOf<S, Name>> }[keyof S & string];

/**
 * What a payload has to be like: a part of it, with `expect.anything()` and its like of Vitest and Jest anywhere;
 * or a function that returns `true` for one that matches.
 */
export type Matcher<Payload> =
  | ((payload: Payload) => boolean)
  | (Payload extends object ? { readonly [Key in keyof Payload]?: unknown } : Payload)
  | { asymmetricMatch(other: unknown): boolean };

/** What a test asks of an outbox. */
export interface OutboxTesting<Tx, S extends Schemas> {
  /** What a transaction has stored so far of the outbox's topics, in order. */
  readonly stored: (transaction: Tx) => Promise<SentOf<S>[]>;
  /**
   * That a transaction has stored a message of this topic that matches.
   *
   * @returns the first that does. @throws Error that shows what was stored instead.
   */
  readonly expectStored: <Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    matcher?: Matcher<ParsedOf<S, Name>>,
  ) => Promise<Sent<Name, ParsedOf<S, Name>>>;
  /**
   * Publishes what is committed, until nothing is left, and resolves to what of it is of the outbox's topics, in
   * order: at each of their destinations, one after the other, unless told which. It is published then: a second call has only what came since. Not beside a relay, which takes it first.
   */
  readonly drained: (options?: Omit<DrainOptions, 'publisher'>) => Promise<SentOf<S>[]>;
}

/**
 * Looks at an outbox from a test, under any test runner.
 *
 * @example
 * ```ts
 * const { expectStored } = outboxTesting(outbox);
 * await db.transaction(async (tx) => {
 *   await createOrder(tx, { id: '1', total: 42 });
 *   await expectStored(tx, 'order.created', { id: '1' });
 * });
 * ```
 */
export function outboxTesting<Tx, S extends Schemas>(outbox: Outbox<Tx, S>): OutboxTesting<Tx, S> {
  const read = async (messages: readonly Message[]): Promise<SentOf<S>[]> => {
    const sent: Sent[] = [];
    for (const message of messages) {
      const { topic = '', key } = message;
      if (!Object.hasOwn(outbox.topics, topic)) continue;
      sent.push({ topic, key, payload: await payloadOf(outbox.topics, message), message });
    }
    return sent;
  };
  const stored = async (transaction: Tx) => read(await outbox.stored(transaction));
  return {
    stored,
    async expectStored<Name extends keyof S & string>(
      transaction: Tx,
      topic: Name,
      matcher?: Matcher<ParsedOf<S, Name>>,
    ) {
      const all = await stored(transaction);
      let cause: unknown;
      const found = all.find((each) => {
        if (each.topic !== topic) return false;
        try {
          return matcher === undefined || matches(each.payload, matcher);
        } catch (error) {
          // An assertion within the matcher: another message may pass it.
          cause = error;
          return false;
        }
      });
      if (found === undefined) {
        const list = all.map((each) => `  ${each.topic} ${JSON.stringify(each.payload)}`).join('\n') || '  nothing';
        const like = matcher === undefined || typeof matcher === 'function' ? '' : ` like ${textOf(matcher)}`;
        throw new Error(`no ${topic}${like} was stored in this transaction, but:\n${list}`, { cause });
      }
      return found as unknown as Sent<Name, ParsedOf<S, Name>>;
    },
    async drained(options = {}) {
      const messages: Message[] = [];
      const publisher: Publisher = {
        publish: (message) => {
          messages.push(message);
          return Promise.resolve();
        },
      };
      const { destination } = options;
      for (const each of destination === undefined ? destinationsOf(outbox.topics) : [destination]) {
        await outbox.drain({ concurrency: 1, ...options, destination: each, publisher });
      }
      return read(messages);
    },
  };
}

/** A matcher as JSON, with those of a test runner by the names that they give themselves. */
function textOf(matcher: unknown): string {
  return JSON.stringify(matcher, (_, part: unknown) =>
    hasMethods(part, 'asymmetricMatch', 'toString') ? String(part) : part,
  );
}

function matches(value: unknown, matcher: unknown): boolean {
  if (typeof matcher === 'function') return (matcher as (value: unknown) => unknown)(value) === true;
  if (typeof matcher !== 'object' || matcher === null) return Object.is(value, matcher);
  const asymmetric = matcher as { asymmetricMatch?: (other: unknown) => boolean };
  if (hasMethods(matcher, 'asymmetricMatch')) return asymmetric.asymmetricMatch?.(value) === true;
  if (matcher instanceof Date) return value instanceof Date && value.getTime() === matcher.getTime();
  if (typeof value !== 'object' || value === null || Array.isArray(matcher) !== Array.isArray(value)) return false;
  if (Array.isArray(matcher) && matcher.length !== (value as unknown[]).length) return false;
  return Object.entries(matcher).every(([key, part]) => matches((value as Record<string, unknown>)[key], part));
}

/** How a `MemoryBroker` delivers. */
export interface MemoryBrokerOptions {
  /** How often a message is handed over before it is dead. @default 3 */
  readonly maxDeliveries?: number;
  /** How often each message is handed over although its handler succeeded: what handlers must live with. @default 0 */
  readonly duplicates?: number;
  /** Gets why a message is dead, and which it is. @default the console */
  readonly errorLogger?: ErrorLogger;
}

/** A broker in memory: a publisher, and a subscriber to what is published. */
export interface MemoryBroker extends Publisher, Subscriber {
  /** Everything that was published, in order. */
  readonly published: readonly Message[];
  /** What was handed over as often as may be without success, and why. */
  readonly dead: readonly { readonly message: Message; readonly error: unknown }[];
  /** Resolves when all that was published is handled or dead at every subscription. */
  idle(): Promise<void>;
}

interface Queue {
  readonly waiting: { readonly message: Message; failures: number; again: number }[];
  busy: boolean;
  wake: () => void;
}

/**
 * A broker for tests: every subscription gets every message that is published while it is there, in order, and
 * again where its handler failed.
 *
 * @throws MessengerError `INVALID_OPTION`.
 */
export function memoryBroker(options: MemoryBrokerOptions = {}): MemoryBroker {
  checkKeys(options, {
    maxDeliveries: true,
    duplicates: true,
    errorLogger: true,
  } satisfies KeysOf<MemoryBrokerOptions>);
  const { errorLogger = consoleErrorLogger } = options;
  const whole = { max: 1_000_000, integer: true };
  const maxDeliveries = numberOption('maxDeliveries', options.maxDeliveries, 3, { min: 1, ...whole });
  const duplicates = numberOption('duplicates', options.duplicates, 0, { min: 0, ...whole });
  const published: Message[] = [];
  const dead: { message: Message; error: unknown }[] = [];
  const queues = new Set<Queue>();
  let settled: (() => void)[] = [];
  const isIdle = () => [...queues].every(({ waiting, busy }) => waiting.length === 0 && !busy);
  const tellIdle = () => {
    if (!isIdle()) return;
    const told = settled;
    settled = [];
    for (const each of told) each();
  };

  async function deliver(queue: Queue, { name, handler }: Subscription, signal: AbortSignal): Promise<void> {
    const next = queue.waiting[0];
    if (next === undefined) return;
    queue.busy = true;
    try {
      await handler(next.message, { signal });
      next.again -= 1;
      if (next.again < 0) queue.waiting.shift();
    } catch (error) {
      next.failures += 1;
      if (next.failures >= maxDeliveries) {
        queue.waiting.shift();
        dead.push({ message: next.message, error });
        const { id, topic = 'of no topic' } = next.message;
        errorLogger.error(
          new Error(`${name}: message ${id} (${topic}) is dead after ${String(next.failures)} failures`, {
            cause: error,
          }),
        );
      }
    } finally {
      queue.busy = false;
      tellIdle();
    }
  }

  return {
    published,
    dead,
    publish(message) {
      published.push(message);
      for (const queue of queues) {
        queue.waiting.push({ message, failures: 0, again: duplicates });
        queue.wake();
      }
      return Promise.resolve();
    },
    async subscribe(subscription, { signal }) {
      const queue: Queue = { waiting: [], busy: false, wake: () => undefined };
      queues.add(queue);
      const onAbort = () => {
        queue.wake();
      };
      signal.addEventListener('abort', onAbort);
      while (!signal.aborted) {
        if (queue.waiting.length > 0) await deliver(queue, subscription, signal);
        else await new Promise<void>((resolve) => (queue.wake = resolve));
      }
      signal.removeEventListener('abort', onAbort);
      queues.delete(queue);
      tellIdle();
    },
    idle: () =>
      new Promise((resolve) => {
        settled.push(resolve);
        tellIdle();
      }),
  };
}

/**
 * Helpers for an application's tests. They show which messages its transactions store and which would be published, and
 * include an in-memory broker.
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

/** A message as a test sees it. */
export interface Sent<Name = string, Payload = unknown> {
  readonly topic: Name;
  readonly key: string | undefined;
  /** The payload that a handler would get, parsed by the topic's schema. */
  readonly payload: Payload;
  readonly message: Message;
}

/** A message for one of the topics. Its `topic` tells which one. */
export type SentOf<S extends Schemas> = { [Name in keyof S & string]: Sent<Name, ParsedOf<S, Name>> }[keyof S & string];

/**
 * Describes an expected payload. It is either a part of the payload, which can contain matchers such as
 * `expect.anything()` from Vitest and Jest anywhere, or a function that returns `true` for a matching payload.
 */
export type Matcher<Payload> =
  | ((payload: Payload) => boolean)
  | (Payload extends object ? { readonly [Key in keyof Payload]?: unknown } : Payload)
  | { asymmetricMatch(other: unknown): boolean };

/** The functions that inspect an outbox in a test. */
export interface OutboxTesting<Tx, S extends Schemas> {
  /** Resolves to the messages that a transaction has stored so far for the outbox's topics, in order. */
  readonly stored: (transaction: Tx) => Promise<SentOf<S>[]>;
  /**
   * Asserts that a transaction has stored a matching message for this topic.
   *
   * @returns the first message that matches. @throws Error if there is none. The error shows what was stored instead.
   */
  readonly expectStored: <Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    matcher?: Matcher<ParsedOf<S, Name>>,
  ) => Promise<Sent<Name, ParsedOf<S, Name>>>;
  /**
   * Publishes committed messages until none are left, and resolves to the messages for the outbox's topics, in order.
   * It drains each destination of these topics, one after the other, or only the given destination. The messages then
   * count as published, so a second call returns only later messages. Do not use it while a relay is running, because
   * the relay would take the messages first.
   */
  readonly drained: (options?: Omit<DrainOptions, 'publisher'>) => Promise<SentOf<S>[]>;
}

/**
 * Inspects an outbox in a test, under any test runner.
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
          // An assertion in the matcher failed. Another message may pass it.
          cause = error;
          return false;
        }
      });
      if (found === undefined) {
        const list = all.map((each) => `  ${each.topic} ${JSON.stringify(each.payload)}`).join('\n') || '  nothing';
        const like = matcher === undefined || typeof matcher === 'function' ? '' : ` like ${textOf(matcher)}`;
        throw new Error(`no ${topic}${like} was stored in this transaction. It stored:\n${list}`, { cause });
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

/** Returns a matcher as JSON. A test runner's matchers appear under their own names. */
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

/** The options of `memoryBroker`. */
export interface MemoryBrokerOptions {
  /** How often a message is delivered before it counts as dead. @default 3 */
  readonly maxDeliveries?: number;
  /**
   * How often each message is delivered again although its handler succeeded. Handlers must tolerate that. @default 0
   */
  readonly duplicates?: number;
  /** Receives an error for each dead message, with the reason. @default the console */
  readonly errorLogger?: ErrorLogger;
}

/** An in-memory broker. It is a publisher, and also a subscriber that receives the published messages. */
export interface MemoryBroker extends Publisher, Subscriber {
  /** All messages that were published, in order. */
  readonly published: readonly Message[];
  /** The messages that failed `maxDeliveries` times, each with its last error. */
  readonly dead: readonly { readonly message: Message; readonly error: unknown }[];
  /** Resolves when every published message has been handled or is dead at every subscription. */
  idle(): Promise<void>;
}

interface Queue {
  readonly waiting: { readonly message: Message; failures: number; again: number }[];
  busy: boolean;
  wake: () => void;
}

/**
 * A broker for tests. Every subscription gets every message that is published while the subscription runs, in order. If
 * the handler fails, the subscription gets the message again.
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

/**
 * Tests for everything that a publisher must do, under any test runner.
 *
 * @module
 */
import { failureKind } from '../../core/publish/failure-kinds.js';
import { newMessage, type Message, type NewMessageOptions } from '../../core/contracts/message.js';
import {
  isBatchPublisher,
  type BatchPublisher,
  type Publisher,
  type PublishResult,
} from '../../core/contracts/publisher.js';
import { assert, assertEqual, rejection } from './assert.js';

/**
 * The features that a publisher declares. The suite also tests that the publisher rejects what it declares as
 * unsupported.
 */
export interface PublisherFeatures {
  /** The publisher has `publishBatch`. If false, it must not have this method. */
  readonly batch: boolean;
  /**
   * The value of the publisher's `batchKeepsKeyOrder`. If true, the suite tests the order in a batch. It also tests
   * that a failed message makes the later messages with the same key fail.
   */
  readonly batchKeepsKeyOrder: boolean;
  /**
   * The consumer gets messages with the same key in the order in which they were published. If false, this is not
   * tested.
   */
  readonly ordered: boolean;
  /** The broker drops a message if it already has a message with the same id. If false, the message arrives twice. */
  readonly deduplicates: boolean;
  /** The publisher accepts messages without a key. If false, such messages fail permanently. */
  readonly keyless: boolean;
  /** The number of bytes from which a payload fails permanently; `null` if there is no such limit. */
  readonly maxPayloadBytes: number | null;
  /** The number of metadata entries above which a message fails permanently; `null` if there is no such limit. */
  readonly maxMetadata: number | null;
  /** `topic`, `key` and `at` reach the consumer. If false, they do not. */
  readonly carriesHeader: boolean;
  /** The publisher connects to a broker, and the harness has `unreachable`. If false, the harness must not have it. */
  readonly connects: boolean;
}

/** A message as it reached the consumer. */
export type ReceivedMessage = Pick<Message, 'id' | 'payload' | 'metadata' | 'topic' | 'key' | 'at'>;

/** One publisher, for a queue or topic that nothing else uses. */
export interface PublisherHarness {
  readonly publisher: Publisher;
  /**
   * Waits until `count` messages have arrived since the start, and a little longer for surplus messages. Resolves to
   * all messages in the order of arrival.
   */
  readonly received: (count: number) => Promise<readonly ReceivedMessage[]>;
  /** The same kind of publisher for a broker that does not exist; absent if there is no broker to reach. */
  readonly unreachable?: () => Publisher | Promise<Publisher>;
  /** For `batch`: returns a message with the given key that fails permanently in a batch with others. */
  readonly refused: (key: string) => Message;
  readonly close: () => Promise<void>;
}

/** The parameters of the suite. */
export interface PublisherSuite {
  /** Declares a test: `it` of vitest, jest or mocha, or `test` of node:test. */
  readonly it: (name: string, test: () => Promise<void>) => unknown;
  /** Creates a new harness. Called once per test. */
  readonly create: () => Promise<PublisherHarness>;
  readonly features: PublisherFeatures;
}

/**
 * Declares the tests for the `Publisher` contract and, if declared, for the `BatchPublisher` contract.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('my publisher', () => publisherTestSuite({ it, create, features }));
 * ```
 */
export function publisherTestSuite({ it, create, features }: PublisherSuite): void {
  const test = (name: string, body: (harness: PublisherHarness) => Promise<void>): void => {
    it(name, async () => {
      const harness = await create();
      try {
        await body(harness);
      } finally {
        await harness.close();
      }
    });
  };

  test('delivers payloads byte for byte', async ({ publisher, received }) => {
    const payloads = [
      new Uint8Array([0]),
      Uint8Array.from({ length: 256 }, (_, byte) => byte),
      new Uint8Array([0xef, 0xbb, 0xbf, 0x61]),
      new Uint8Array([0xed, 0xa0, 0x80]),
      ...[
        'text',
        ' ',
        '{"json":true}',
        'grüße 漢字 😀',
        'a\r\nb\tc',
        'nul \u0000 bell \u0007',
        '\ufffe\uffff',
        '<&"\'>',
      ].map((text) => new TextEncoder().encode(text)),
    ];
    const messages = payloads.map((payload, i) => newMessage(payload, { key: `k${String(i)}` }));
    await publishAll(publisher, messages);
    assertSame(await received(messages.length), messages, ({ payload }) => [...payload]);
  });

  test('keeps ids', async ({ publisher, received }) => {
    const messages = [some(), some({ id: 'chosen-1' }), some({ id: 'order:2' })];
    await publishAll(publisher, messages);
    assertSame(await received(messages.length), messages, ({ id }) => id);
  });

  test('keeps metadata', async ({ publisher, received }) => {
    const metadata: Record<string, string>[] = [
      {},
      { tenant: 'acme', 'content-type': 'application/json' },
      { empty: '', unicode: 'grüße 漢字 😀', control: 'a\u0007b', 'white space': 'x', ключ: 'y', 'a..b': 'dots' },
      { constructor: 'c', toString: 't' },
    ];
    const messages = metadata.map((entries) => some({ metadata: entries }));
    await publishAll(publisher, messages);
    assertSame(await received(messages.length), messages, (message) => Object.entries(message.metadata).sort());
  });

  test(`${features.carriesHeader ? 'carries' : 'does not carry'} topic, key and time`, async ({
    publisher,
    received,
  }) => {
    const message = some({ topic: 'order.created', key: 'order-1', at: new Date('2020-02-03T04:05:06.789Z') });
    await publisher.publish(message);
    const [got] = await received(1);
    const header = [got?.topic, got?.key, got?.at.getTime()];
    const same = JSON.stringify(header) === JSON.stringify([message.topic, message.key, message.at.getTime()]);
    assertEqual(same, features.carriesHeader, 'topic, key and at reach the consumer');
  });

  test(`${features.deduplicates ? 'drops' : 'does not drop'} a message that the broker already has`, async ({
    publisher,
    received,
  }) => {
    const message = some();
    await publisher.publish(message);
    await publisher.publish(message);
    const count = features.deduplicates ? 1 : 2;
    assertEqual((await received(count)).length, count, 'deliveries of one id published twice');
  });

  test(`${features.keyless ? 'accepts' : 'refuses'} a message without a key`, async ({ publisher, received }) => {
    const message = newMessage('keyless');
    if (features.keyless) {
      await publisher.publish(message);
      assertSame(await received(1), [message], ({ id }) => id);
    } else {
      assertKind(await rejection(publisher.publish(message), 'publish'), 'permanent');
    }
  });

  if (features.ordered) {
    test('delivers messages of one key in the order of sequential calls', async ({ publisher, received }) => {
      const messages = Array.from({ length: 12 }, (_, i) => newMessage(String(i), { key: `k${String(i % 2)}` }));
      for (const message of messages) await publisher.publish(message);
      assertOrderPerKey(await received(messages.length), messages);
    });
  }

  const { maxPayloadBytes, maxMetadata } = features;
  if (maxPayloadBytes !== null) {
    test('refuses a payload above the limit permanently', async ({ publisher }) => {
      const error = await rejection(publisher.publish(oversized(maxPayloadBytes)), 'publish');
      assertKind(error, 'permanent');
    });
  }
  if (maxMetadata !== null) {
    test('accepts as many metadata entries as declared, and refuses more permanently', async ({
      publisher,
      received,
    }) => {
      const message = some({ metadata: entries(maxMetadata) });
      await publisher.publish(message);
      assertSame(await received(1), [message], ({ metadata }) => Object.entries(metadata).sort());
      assertKind(
        await rejection(publisher.publish(some({ metadata: entries(maxMetadata + 1) })), 'publish'),
        'permanent',
      );
    });
  }

  test('does not resolve a call as published if its signal is already aborted', async ({ publisher }) => {
    const error = await rejection(publisher.publish(some(), { signal: AbortSignal.abort() }), 'publish');
    assertKind(error, 'retryable');
  });

  test('reports a broker that does not exist as a failure of the connection', async ({ unreachable }) => {
    assertEqual(unreachable !== undefined, features.connects, 'the harness has `unreachable`');
    if (unreachable === undefined) return;
    const publisher = await unreachable();
    assertKind(await rejection(publisher.publish(some()), 'publish'), 'connection');
    if (!isBatchPublisher(publisher)) return;
    const results = await publisher.publishBatch(Array.from({ length: 25 }, () => some()));
    assertEqual(results.length, 25, 'results');
    for (const result of results) assertKind(errorOf(result), 'connection');
  });

  if (features.batch) batchTests(test, features);
  else {
    test('has no batch form', async ({ publisher }) => {
      assert(!isBatchPublisher(publisher), 'publishBatch is declared as unsupported, so it must be absent');
      await Promise.resolve();
    });
  }
}

type Test = (name: string, body: (harness: PublisherHarness) => Promise<void>) => void;

function batchTests(test: Test, features: PublisherFeatures): void {
  test('declares batchKeepsKeyOrder as the features do', async ({ publisher }) => {
    assertEqual(batched(publisher).batchKeepsKeyOrder ?? false, features.batchKeepsKeyOrder, 'batchKeepsKeyOrder');
    await Promise.resolve();
  });

  test('answers an empty batch with no results', async ({ publisher }) => {
    assertEqual(await batched(publisher).publishBatch([]), [], 'results');
  });

  test('sends a batch larger than a request of any broker', async ({ publisher, received }) => {
    const messages = Array.from({ length: 57 }, () => some());
    await publishAll(publisher, messages);
    assertSame(await received(messages.length), messages, ({ id }) => id);
  });

  test('fails a refused message in its place, and delivers the rest', async ({ publisher, received, refused }) => {
    const messages = Array.from({ length: 23 }, (_, i) => (i % 7 === 3 ? refused(`bad${String(i)}`) : some()));
    const results = await batched(publisher).publishBatch(messages);
    assertEqual(
      results.map((result) => result.acknowledged),
      messages.map((_, i) => i % 7 !== 3),
      'acknowledged, by place',
    );
    for (const result of results) if (!result.acknowledged) assertKind(result.error, 'permanent');
    const good = messages.filter((_, i) => i % 7 !== 3);
    assertSame(await received(good.length), good, ({ id }) => id);
  });

  const { maxPayloadBytes } = features;
  if (maxPayloadBytes !== null) {
    test('splits a batch by bytes, and fails only the message above the limit', async ({ publisher, received }) => {
      // Three of these messages exceed one request to any broker with that limit for a message.
      const messages = Array.from({ length: 7 }, (_, i) =>
        i === 4 ? oversized(maxPayloadBytes) : some({}, 'x'.repeat(Math.floor(maxPayloadBytes * 0.4))),
      );
      const results = await batched(publisher).publishBatch(messages);
      assertEqual(
        results.map((result) => result.acknowledged),
        messages.map((_, i) => i !== 4),
        'acknowledged, by place',
      );
      assertKind(errorOf(results[4]), 'permanent');
      const good = messages.filter((_, i) => i !== 4);
      assertSame(await received(good.length), good, ({ id, payload }) => [id, payload.byteLength]);
    });
  }

  test('acknowledges no message of a batch whose signal is already aborted', async ({ publisher }) => {
    const messages = Array.from({ length: 12 }, () => some());
    const results = await batched(publisher).publishBatch(messages, { signal: AbortSignal.abort() });
    assertEqual(results.length, messages.length, 'results');
    for (const result of results) assertKind(errorOf(result), 'retryable');
  });

  if (!features.batchKeepsKeyOrder) return;

  test('fails the later messages of a key behind a failure, and no others', async ({
    publisher,
    received,
    refused,
  }) => {
    const [a1, b1, a3, b2] = [some({ key: 'a' }), some({ key: 'b' }), some({ key: 'a' }), some({ key: 'b' })];
    const results = await batched(publisher).publishBatch([a1, b1, refused('a'), a3, b2]);
    assertEqual(
      results.map((result) => result.acknowledged),
      [true, true, false, false, true],
      'acknowledged, by place',
    );
    assertKind(errorOf(results[2]), 'permanent');
    assertKind(errorOf(results[3]), 'retryable');
    assertSame(await received(3), [a1, b1, b2], ({ id }) => id);
  });

  if (!features.ordered) return;
  test('delivers messages of one key in the order of a batch', async ({ publisher, received }) => {
    const messages = Array.from({ length: 30 }, (_, i) => newMessage(String(i), { key: `k${String(i % 4)}` }));
    await publishAll(publisher, messages);
    assertOrderPerKey(await received(messages.length), messages);
  });
}

let keys = 0;

/** A message that every publisher accepts. It has its own key, because some publishers need one. */
function some(options: NewMessageOptions = {}, payload = 'payload'): Message {
  return newMessage(payload, { key: `own-${String(++keys)}`, ...options });
}

function oversized(limit: number): Message {
  return some({}, 'x'.repeat(limit));
}

function entries(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`entry-${String(i)}`, String(i)]));
}

function batched(publisher: Publisher): BatchPublisher {
  assert(isBatchPublisher(publisher), 'publishBatch is declared, but missing');
  return publisher;
}

/** Publishes as a relay would: with `publishBatch` if the publisher has it. */
async function publishAll(publisher: Publisher, messages: readonly Message[]): Promise<void> {
  if (!isBatchPublisher(publisher)) {
    for (const message of messages) await publisher.publish(message);
    return;
  }
  const results = await publisher.publishBatch(messages);
  assertEqual(results.length, messages.length, 'one result per message');
  for (const result of results) if (!result.acknowledged) throw result.error;
}

function errorOf(result: PublishResult | undefined): unknown {
  assert(result !== undefined && !result.acknowledged, 'expected a failure, got an acknowledgement');
  return result.error;
}

function assertKind(error: unknown, kind: string): void {
  assert(error instanceof Error, `expected an Error, got ${String(error)}`);
  assertEqual(failureKind(error), kind, `kind of the error "${error.message}"`);
}

/** Compares messages by id, because brokers without order may deliver in any order. */
function assertSame(
  got: readonly ReceivedMessage[],
  sent: readonly Message[],
  view: (message: ReceivedMessage) => unknown,
): void {
  const sorted = (messages: readonly ReceivedMessage[]): unknown =>
    [...messages].sort((a, b) => (a.id < b.id ? -1 : 1)).map((message) => [message.id, view(message)]);
  assertEqual(got.length, sent.length, 'messages received');
  assertEqual(sorted(got), sorted(sent), 'messages received');
}

function assertOrderPerKey(got: readonly ReceivedMessage[], sent: readonly Message[]): void {
  const ofKey = (messages: readonly { id: string }[], key: string | undefined): unknown => {
    const ids = new Set(sent.filter((message) => message.key === key).map(({ id }) => id));
    return messages.filter(({ id }) => ids.has(id)).map(({ id }) => id);
  };
  for (const key of new Set(sent.map((message) => message.key))) {
    assertEqual(ofKey(got, key), ofKey(sent, key), `order of key ${String(key)}`);
  }
}

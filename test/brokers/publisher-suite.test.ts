import { describe, expect, it } from 'vitest';
import { PublishError } from '../../src/core/errors.js';
import { newMessage, type Message } from '../../src/core/contracts/message.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import { publisherTestSuite, type PublisherFeatures } from '../../src/testing/conformance/publisher-suite.js';

const FEATURES: PublisherFeatures = {
  batch: true,
  batchKeepsKeyOrder: false,
  ordered: true,
  deduplicates: false,
  keyless: true,
  maxPayloadBytes: 1_000,
  maxMetadata: 20,
  carriesHeader: true,
  connects: false,
};

type Arrive = (message: Message) => void;

/** A correct publisher, on top of an array. */
function right(arrive: Arrive): BatchPublisher {
  const check = (message: Message, signal?: AbortSignal): PublishResult => {
    if (signal?.aborted === true) return { acknowledged: false, error: new Error('aborted') };
    if (message.payload.byteLength >= 1_000 || Object.keys(message.metadata).length > 20) {
      return { acknowledged: false, error: new PublishError('refused', { kind: 'permanent' }) };
    }
    arrive(message);
    return ACKNOWLEDGED;
  };
  return {
    async publish(message, options) {
      await Promise.resolve();
      const result = check(message, options?.signal);
      if (!result.acknowledged) throw result.error;
    },
    publishBatch: (messages, options) => Promise.resolve(messages.map((message) => check(message, options?.signal))),
  };
}

/** A publisher that delivers a changed message. */
function changed(arrive: Arrive, change: (message: Message) => Partial<Message>): Publisher {
  return right((message) => {
    arrive({ ...message, ...change(message) });
  });
}

/** The names of the tests that fail. */
async function failures(
  make: (arrive: Arrive) => Publisher,
  features: Partial<PublisherFeatures> = {},
): Promise<string[]> {
  const tests: [string, () => Promise<void>][] = [];
  publisherTestSuite({
    it: (name, test) => tests.push([name, test]),
    features: { ...FEATURES, ...features },
    create: () => {
      const arrived: Message[] = [];
      return Promise.resolve({
        publisher: make((message) => arrived.push(message)),
        received: () => Promise.resolve(arrived),
        refused: (key) => newMessage('x'.repeat(1_000), { key }),
        close: () => Promise.resolve(),
      });
    },
  });
  const failed: string[] = [];
  for (const [name, test] of tests) await test().catch(() => failed.push(name));
  return failed;
}

describe('the publisher suite', () => {
  it('passes a publisher that keeps its promises', async () => {
    expect(await failures(right)).toEqual([]);
  });

  it.each<[string, string, (arrive: Arrive) => Publisher, Partial<PublisherFeatures>]>([
    ['loses messages', 'keeps ids', () => right(() => undefined), {}],
    ['changes ids', 'keeps ids', (arrive) => changed(arrive, () => ({ id: 'x' })), {}],
    ['drops metadata', 'keeps metadata', (arrive) => changed(arrive, () => ({ metadata: {} })), {}],
    [
      'goes through text',
      'delivers payloads byte for byte',
      (arrive) => changed(arrive, ({ payload }) => ({ payload: Buffer.from(Buffer.from(payload).toString('utf8')) })),
      {},
    ],
    [
      'mixes up results',
      'fails a refused message in its place, and delivers the rest',
      (arrive) => {
        const good = right(arrive);
        const publishBatch: BatchPublisher['publishBatch'] = async (some) =>
          [...(await good.publishBatch(some))].reverse();
        return { publish: (message) => good.publish(message), publishBatch };
      },
      {},
    ],
    [
      'ignores failures of a batch',
      'fails a refused message in its place, and delivers the rest',
      (arrive) => {
        const good = right(arrive);
        const publishBatch: BatchPublisher['publishBatch'] = async (some) => {
          await good.publishBatch(some);
          return some.map(() => ACKNOWLEDGED);
        };
        return { publish: (message) => good.publish(message), publishBatch };
      },
      {},
    ],
    [
      'ignores the signal',
      'acknowledges no message of a batch whose signal is already aborted',
      (arrive) => {
        const good = right(arrive);
        return {
          publish: (message) => good.publish(message),
          publishBatch: (some: readonly Message[]) => good.publishBatch(some),
        };
      },
      {},
    ],
    ['has a batch form that it denies', 'has no batch form', right, { batch: false }],
    ['takes what it denies', 'refuses a message without a key', right, { keyless: false }],
    [
      'claims to keep the order of keys',
      'declares batchKeepsKeyOrder as the features do',
      right,
      { batchKeepsKeyOrder: true },
    ],
    ['claims to de-duplicate', 'drops a message that the broker already has', right, { deduplicates: true }],
    ['carries what it denies', 'does not carry topic, key and time', right, { carriesHeader: false }],
    [
      'delivers backwards',
      'delivers messages of one key in the order of sequential calls',
      (arrive) => {
        const held: Message[] = [];
        return right((message) => {
          held.unshift(message);
          if (held.length === 12) held.forEach(arrive);
        });
      },
      {},
    ],
  ])('fails one that %s', async (_, test, make, features) => {
    expect(await failures(make, features)).toContain(test);
  });
});

import { afterAll, beforeAll, describe, it } from 'vitest';
import { PublishError } from '../../src/core/errors.js';
import { newMessage, type Message } from '../../src/core/contracts/message.js';
import { asBatchPublisher } from '../../src/core/publish/single-publisher.js';
import type { Publisher } from '../../src/core/contracts/publisher.js';
import { Mux } from '../../src/brokers/mux.js';
import { SqsPublisher } from '../../src/brokers/aws/sqs/publisher.js';
import {
  publisherTestSuite,
  type PublisherFeatures,
  type PublisherHarness,
} from '../../src/testing/conformance/publisher-suite.js';
import { startAws, type TestAws } from '../support/aws.js';
import { sqsHarness, STANDARD } from '../support/aws-publishers.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

describe('Mux over SQS', () => {
  const create = async (): Promise<PublisherHarness> => {
    const harness = await sqsHarness(aws, false);
    const other = new SqsPublisher(aws.sqs, { queue: (await aws.queue()).url });
    return {
      ...harness,
      publisher: new Mux('to', { other }, { fallback: harness.publisher }),
      unreachable: async () => new Mux('to', { other }, { fallback: (await harness.unreachable?.()) ?? other }),
    };
  };
  const features = { ...STANDARD, batchKeepsKeyOrder: false, maxPayloadBytes: 1_048_576 };
  publisherTestSuite({ it, create, features });
});

/** The simplest possible publisher, on top of an array. */
function plainHarness(wrap: (publisher: Publisher) => Publisher): PublisherHarness {
  const arrived: Message[] = [];
  const publisher: Publisher = {
    async publish(message, options) {
      await Promise.resolve();
      if (options?.signal?.aborted === true) throw new Error('aborted');
      if (message.metadata['refuse'] !== undefined) throw new PublishError('refused', { kind: 'permanent' });
      arrived.push(message);
    },
  };
  const down: Publisher = {
    publish: () => Promise.reject(new PublishError('nobody there', { kind: 'connection' })),
  };
  return {
    publisher: wrap(publisher),
    unreachable: () => wrap(down),
    received: () => Promise.resolve(arrived),
    refused: (key) => newMessage('refused', { key, metadata: { refuse: 'yes' } }),
    close: () => Promise.resolve(),
  };
}

const PLAIN: PublisherFeatures = {
  batch: false,
  batchKeepsKeyOrder: false,
  ordered: true,
  deduplicates: false,
  keyless: true,
  maxPayloadBytes: null,
  maxMetadata: null,
  carriesHeader: true,
  connects: true,
};

describe('a plain publisher', () => {
  publisherTestSuite({ it, create: () => Promise.resolve(plainHarness((plain) => plain)), features: PLAIN });
});

describe('a plain publisher that was made to accept batches', () => {
  publisherTestSuite({
    it,
    create: () => Promise.resolve(plainHarness((plain) => asBatchPublisher(plain, 4))),
    features: { ...PLAIN, batch: true, batchKeepsKeyOrder: true },
  });
});

describe('Mux over a plain publisher', () => {
  publisherTestSuite({
    it,
    create: () => Promise.resolve(plainHarness((plain) => new Mux('to', { plain }, { fallback: plain }))),
    features: { ...PLAIN, batch: true },
  });
});

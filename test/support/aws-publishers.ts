import { SNSClient } from '@aws-sdk/client-sns';
import { SQSClient } from '@aws-sdk/client-sqs';
import type { Publisher } from '../../src/core/contracts/publisher.js';
import { newMessage } from '../../src/core/contracts/message.js';
import { SnsPublisher, type SnsPublisherOptions } from '../../src/brokers/aws/sns.js';
import { SqsPublisher, type SqsPublisherOptions } from '../../src/brokers/aws/sqs/publisher.js';
import type { PublisherFeatures, PublisherHarness } from '../../src/testing/conformance/publisher-suite.js';
import { decodeDelivery } from '../../src/brokers/aws/wire/decode.js';
import { clientConfig, deadPort, type TestAws, type TestQueue } from './aws.js';

/** What the publishers of AWS declare; those of SQS and the FIFO ones more. */
export const STANDARD: PublisherFeatures = {
  batch: true,
  batchKeepsKeyOrder: true,
  ordered: false,
  deduplicates: false,
  keyless: true,
  maxPayloadBytes: 262_144,
  maxMetadata: null,
  carriesHeader: true,
  connects: true,
};

export const FIFO: PublisherFeatures = { ...STANDARD, ordered: true, deduplicates: true, keyless: false };

/** A harness whose messages end in a queue. */
async function queueHarness(
  aws: TestAws,
  queue: TestQueue,
  publisher: Publisher,
  unreachable: () => Promise<Publisher>,
): Promise<PublisherHarness> {
  return {
    publisher,
    unreachable,
    received: async (count) =>
      (await aws.drain(queue, count)).map((delivery) => decodeDelivery(delivery, 'message-id')),
    // More than any queue or topic takes.
    refused: (key) => newMessage('x'.repeat(1_048_577), { key }),
    close: () => Promise.resolve(),
  };
}

export async function sqsHarness(
  aws: TestAws,
  fifo: boolean,
  options: Partial<SqsPublisherOptions> = {},
): Promise<PublisherHarness> {
  const queue = await aws.queue({ fifo });
  return queueHarness(aws, queue, new SqsPublisher(aws.sqs, { queue: queue.url, ...options }), async () => {
    const config = clientConfig(await deadPort());
    return new SqsPublisher(new SQSClient(config), { queue: queue.name, ...options });
  });
}

export async function snsHarness(
  aws: TestAws,
  fifo: boolean,
  raw: boolean,
  options: Partial<SnsPublisherOptions> = {},
): Promise<PublisherHarness> {
  const [queue, topic] = [await aws.queue({ fifo }), await aws.topic({ fifo })];
  await aws.subscribe(topic, queue, { raw });
  return queueHarness(aws, queue, new SnsPublisher(aws.sns, { topic, ...options }), async () => {
    const config = clientConfig(await deadPort());
    return new SnsPublisher(new SNSClient(config), { topic, ...options });
  });
}

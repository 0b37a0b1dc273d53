import { SQSClient } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { SnsPublisher } from '../../../src/brokers/aws/sns.js';
import { SqsPublisher } from '../../../src/brokers/aws/sqs/publisher.js';
import type { BatchPublisher } from '../../../src/core/contracts/publisher.js';
import { SqsSubscriber } from '../../../src/brokers/aws/sqs/subscriber.js';
import {
  subscriberTestSuite,
  type SubscriberFeatures,
  type SubscriberHarness,
  type SubscriberSetup,
} from '../../../src/testing/conformance/subscriber-suite.js';
import { clientConfig, startAws, type TestAws, type TestQueue } from '../../support/aws.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

async function harness(
  queue: TestQueue,
  publisher: BatchPublisher,
  setup: SubscriberSetup,
): Promise<SubscriberHarness> {
  // A client of its own, so that one test's broken broker does not affect others.
  const client = new SQSClient(clientConfig(aws.port));
  const subscriber = new SqsSubscriber(client, { queue: queue.name, visibilityTimeoutSeconds: 2, ...setup });
  return Promise.resolve({
    subscriber,
    timeout: 2_000,
    pending: () => aws.pending(queue),
    async publish(messages) {
      for (const result of await publisher.publishBatch(messages)) if (!result.acknowledged) throw result.error;
    },
    async breakBroker() {
      await aws.remove(queue);
    },
    close() {
      client.destroy();
      return Promise.resolve();
    },
  });
}

const FEATURES: SubscriberFeatures = {
  redelivers: true,
  ordered: false,
  concurrency: true,
  extendsWhileHandling: true,
  stopTimeout: true,
};

describe('SqsSubscriber, standard', () => {
  const create = async (setup: SubscriberSetup): Promise<SubscriberHarness> => {
    const queue = await aws.queue();
    return harness(queue, new SqsPublisher(aws.sqs, { queue: queue.url }), setup);
  };
  subscriberTestSuite({ it, create, features: FEATURES });
});

describe('SqsSubscriber, FIFO', () => {
  const create = async (setup: SubscriberSetup): Promise<SubscriberHarness> => {
    const queue = await aws.queue({ fifo: true });
    return harness(queue, new SqsPublisher(aws.sqs, { queue: queue.url }), setup);
  };
  subscriberTestSuite({ it, create, features: { ...FEATURES, ordered: true } });
});

describe('SqsSubscriber, behind an SNS topic without raw delivery', () => {
  const create = async (setup: SubscriberSetup): Promise<SubscriberHarness> => {
    const [queue, topic] = [await aws.queue(), await aws.topic()];
    await aws.subscribe(topic, queue, { raw: false });
    return harness(queue, new SnsPublisher(aws.sns, { topic }), setup);
  };
  subscriberTestSuite({ it, create, features: FEATURES });
});

import { afterAll, beforeAll, describe, it } from 'vitest';
import { publisherTestSuite } from '../../src/testing/publisher-suite.js';
import { startAws, type TestAws } from '../support/aws.js';
import { FIFO, snsHarness, sqsHarness, STANDARD } from '../support/aws-publishers.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

describe('SqsPublisher, standard', () => {
  publisherTestSuite({ it, create: () => sqsHarness(aws, false), features: STANDARD });
});

describe('SqsPublisher, standard, requests of 1 MiB', () => {
  const features = { ...STANDARD, maxPayloadBytes: 1_048_576 };
  publisherTestSuite({ it, create: () => sqsHarness(aws, false, { maxBatchBytes: 1_048_576 }), features });
});

describe('SqsPublisher, FIFO', () => {
  publisherTestSuite({ it, create: () => sqsHarness(aws, true), features: FIFO });
});

describe('SqsPublisher, FIFO with a default group', () => {
  const features = { ...FIFO, keyless: true };
  publisherTestSuite({ it, create: () => sqsHarness(aws, true, { defaultGroupId: 'all' }), features });
});

describe('SnsPublisher, standard, raw delivery', () => {
  publisherTestSuite({ it, create: () => snsHarness(aws, false, true), features: STANDARD });
});

describe('SnsPublisher, standard, delivery in an envelope', () => {
  publisherTestSuite({ it, create: () => snsHarness(aws, false, false), features: STANDARD });
});

describe('SnsPublisher, FIFO', () => {
  publisherTestSuite({ it, create: () => snsHarness(aws, true, true), features: FIFO });
});

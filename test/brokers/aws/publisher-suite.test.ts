import { afterAll, beforeAll, describe, it } from 'vitest';
import { publisherTestSuite } from '../../../src/testing/conformance/publisher-suite.js';
import { startAws, type TestAws } from '../../support/aws.js';
import { FIFO, snsHarness, sqsHarness, STANDARD } from '../../support/aws-publishers.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

const SQS = { maxPayloadBytes: 1_048_576 };

describe('SqsPublisher, standard', () => {
  publisherTestSuite({ it, create: () => sqsHarness(aws, false), features: { ...STANDARD, ...SQS } });
});

describe('SqsPublisher, standard, requests of 256 KiB', () => {
  publisherTestSuite({ it, create: () => sqsHarness(aws, false, { maxBatchBytes: 262_144 }), features: STANDARD });
});

describe('SqsPublisher, FIFO', () => {
  publisherTestSuite({ it, create: () => sqsHarness(aws, true), features: { ...FIFO, ...SQS } });
});

describe('SqsPublisher, FIFO with a default group', () => {
  const features = { ...FIFO, ...SQS, keyless: true };
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

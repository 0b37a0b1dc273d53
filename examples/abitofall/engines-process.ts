/** The process of the engines: it tells its parent where they are, and ends when the parent lets go of it. */
import { once } from 'node:events';
import { CreateTopicCommand, SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import { CreateQueueCommand, GetQueueAttributesCommand, SQSClient } from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';
import { startPostgres } from '../../test/support/embedded-postgres.js';
import type { Addresses } from './engines.js';

const withVerifier = process.argv[2] === 'true';
const parentIsGone = once(process, 'disconnect');

const postgres = await startPostgres(17);
try {
  // Not `startFauxqs`: it listens on every interface.
  const broker = buildApp({ logger: false });
  const endpoint = await broker.listen({ host: '127.0.0.1', port: 0 });
  try {
    const addresses: Addresses = {
      databases: {
        shop: await postgres.createDatabase('shop'),
        warehouse: await postgres.createDatabase('warehouse'),
        verifier: await postgres.createDatabase('verifier'),
      },
      endpoint,
      ...(await createTopic(endpoint)),
    };
    if (process.connected) process.send?.(addresses);
    await parentIsGone;
  } finally {
    await broker.close();
  }
} finally {
  await postgres.remove();
}

/** A FIFO topic: it keeps the order of the messages of a group, and the group is the message's key. */
async function createTopic(endpoint: string) {
  const config = { endpoint, region: 'us-east-1', credentials: { accessKeyId: 'any', secretAccessKey: 'any' } };
  const sns = new SNSClient(config);
  const sqs = new SQSClient(config);
  const { TopicArn: topic = '' } = await sns.send(
    new CreateTopicCommand({ Name: 'orders.fifo', Attributes: { FifoTopic: 'true' } }),
  );

  async function subscribedQueue(name: string): Promise<string> {
    const { QueueUrl: queue = '' } = await sqs.send(
      new CreateQueueCommand({ QueueName: name, Attributes: { FifoQueue: 'true', VisibilityTimeout: '30' } }),
    );
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl: queue, AttributeNames: ['QueueArn'] }),
    );
    await sns.send(
      new SubscribeCommand({
        TopicArn: topic,
        Protocol: 'sqs',
        Endpoint: Attributes?.QueueArn,
        Attributes: { RawMessageDelivery: 'true' },
      }),
    );
    return queue;
  }

  const queue = await subscribedQueue('warehouse.fifo');
  // Nobody empties the verifier's queue where there is no verifier.
  const verifierQueue = withVerifier ? await subscribedQueue('verifier.fifo') : undefined;
  sns.destroy();
  sqs.destroy();
  return { topic, queue, verifierQueue };
}

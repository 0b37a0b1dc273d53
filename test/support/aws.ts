import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { CreateTopicCommand, SetSubscriptionAttributesCommand, SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteQueueCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SQSClient,
  type Message as SqsMessage,
} from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';

/** A queue of the emulator. */
export interface TestQueue {
  readonly name: string;
  readonly url: string;
  readonly arn: string;
}

/** An emulator of SNS and SQS in this process, and clients of it. */
export interface TestAws {
  readonly sns: SNSClient;
  readonly sqs: SQSClient;
  /** Where the emulator listens, on the loopback. */
  readonly port: number;
  /** A new queue, of a name of its own unless given one. */
  queue(options?: { name?: string; fifo?: boolean; maximumMessageSize?: number }): Promise<TestQueue>;
  /** A new topic, and its ARN. */
  topic(options?: { fifo?: boolean }): Promise<string>;
  /** Subscribes a queue to a topic, to all messages unless given a filter policy. */
  subscribe(topic: string, queue: TestQueue, options?: { raw?: boolean; filter?: object }): Promise<void>;
  /** Receives and deletes until so many messages are there, or a second passes without any. */
  drain(queue: TestQueue, atLeast: number): Promise<SqsMessage[]>;
  /** Messages that the queue holds, hidden ones included. */
  pending(queue: TestQueue): Promise<number>;
  /** Deletes a queue. */
  remove(queue: TestQueue): Promise<void>;
  stop(): Promise<void>;
}

/** What every client of the tests is given: no network beyond loopback, no look-up of credentials. */
export function clientConfig(port: number) {
  return {
    endpoint: `http://127.0.0.1:${String(port)}`,
    region: 'us-east-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 1,
  };
}

/** Starts the emulator on a free port of the loopback. */
export async function startAws(): Promise<TestAws> {
  await acceptAstralCharacters();
  // Not `startFauxqs`: it listens on every interface.
  const server = buildApp({ logger: false, host: '127.0.0.1' });
  await server.listen({ host: '127.0.0.1', port: 0 });
  const { port } = server.server.address() as AddressInfo;
  const sns = new SNSClient(clientConfig(port));
  const sqs = new SQSClient(clientConfig(port));
  let names = 0;

  const queue: TestAws['queue'] = async ({ fifo = false, maximumMessageSize, ...given } = {}) => {
    const name = given.name ?? `q${String(++names)}${fifo ? '.fifo' : ''}`;
    const { QueueUrl } = await sqs.send(
      new CreateQueueCommand({
        QueueName: name,
        Attributes: {
          ...(fifo ? { FifoQueue: 'true' } : {}),
          ...(maximumMessageSize === undefined ? {} : { MaximumMessageSize: String(maximumMessageSize) }),
        },
      }),
    );
    return { name, url: QueueUrl ?? '', arn: `arn:aws:sqs:us-east-1:000000000000:${name}` };
  };

  const pending: TestAws['pending'] = async ({ url }) => {
    const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }));
    return Number(Attributes?.ApproximateNumberOfMessages) + Number(Attributes?.ApproximateNumberOfMessagesNotVisible);
  };

  const drain: TestAws['drain'] = async ({ url }, atLeast) => {
    const all: SqsMessage[] = [];
    for (;;) {
      const { Messages = [] } = await sqs.send(
        new ReceiveMessageCommand({
          QueueUrl: url,
          MaxNumberOfMessages: 10,
          WaitTimeSeconds: all.length < atLeast ? 1 : 0,
          MessageAttributeNames: ['All'],
          MessageSystemAttributeNames: ['All'],
        }),
      );
      if (Messages.length === 0) return all;
      all.push(...Messages);
      await sqs.send(
        new DeleteMessageBatchCommand({
          QueueUrl: url,
          Entries: Messages.map(({ ReceiptHandle }, i) => ({ Id: String(i), ReceiptHandle })),
        }),
      );
    }
  };

  return {
    sns,
    sqs,
    port,
    queue,
    pending,
    drain,
    async topic({ fifo = false } = {}) {
      const { TopicArn } = await sns.send(
        new CreateTopicCommand({
          Name: `t${String(++names)}${fifo ? '.fifo' : ''}`,
          ...(fifo ? { Attributes: { FifoTopic: 'true' } } : {}),
        }),
      );
      return TopicArn ?? '';
    },
    async subscribe(topic, { arn }, { raw = true, filter } = {}) {
      const { SubscriptionArn } = await sns.send(
        new SubscribeCommand({ TopicArn: topic, Protocol: 'sqs', Endpoint: arn, ReturnSubscriptionArn: true }),
      );
      await sns.send(
        new SetSubscriptionAttributesCommand({
          SubscriptionArn,
          AttributeName: 'RawMessageDelivery',
          AttributeValue: String(raw),
        }),
      );
      if (filter === undefined) return;
      await sns.send(
        new SetSubscriptionAttributesCommand({
          SubscriptionArn,
          AttributeName: 'FilterPolicy',
          AttributeValue: JSON.stringify(filter),
        }),
      );
    },
    async remove({ url }) {
      await sqs.send(new DeleteQueueCommand({ QueueUrl: url }));
    },
    async stop() {
      sns.destroy();
      sqs.destroy();
      await server.close();
    },
  };
}

/** A port of the loopback where nobody listens. */
export async function deadPort(): Promise<number> {
  const { createServer } = await import('node:net');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/**
 * fauxqs 1.9.2 refuses characters beyond U+FFFF, emoji among them, because its expression lacks the
 * flag `u`. SQS takes them (API reference of SendMessage: "#x10000 to #x10FFFF"), so the expression is
 * set right in place.
 */
async function acceptAstralCharacters(): Promise<void> {
  const file = new URL('./sqs/sqsTypes.js', import.meta.resolve('fauxqs'));
  const module = (await import(/* @vite-ignore */ fileURLToPath(file))) as { INVALID_MESSAGE_BODY_CHAR: RegExp };
  // eslint-disable-next-line no-control-regex -- SQS takes these three
  const right = /[^\u0009\u000a\u000d\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u;
  // `compile` changes the object that fauxqs holds; assigning to an export is not possible.
  const wrong = module.INVALID_MESSAGE_BODY_CHAR as unknown as { compile(pattern: string, flags: string): void };
  wrong.compile(right.source, right.flags);
}

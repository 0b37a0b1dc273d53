import { SNSClient } from '@aws-sdk/client-sns';
import { SQSClient } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { failureKind } from '../../../src/core/publish/failure-kinds.js';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import type { PublishResult } from '../../../src/core/contracts/publisher.js';
import { SnsPublisher, type SnsPublisherOptions } from '../../../src/brokers/aws/sns.js';
import { SqsPublisher, type SqsPublisherOptions } from '../../../src/brokers/aws/sqs/publisher.js';
import { startAws, type TestAws } from '../../support/aws.js';
import { faulty, sdkError, type Fault } from '../../support/aws-faults.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

const messages = (count: number): Message[] => Array.from({ length: count }, (_, i) => newMessage(`m${String(i)}`));
const kinds = (results: readonly PublishResult[]): string[] =>
  results.map((result) => (result.acknowledged ? 'ok' : failureKind(result.error)));
const errorOf = (result: PublishResult | undefined): string =>
  result === undefined || result.acknowledged ? 'acknowledged' : result.error.message;

/** A publisher to a new queue, with a fault in between. */
async function throughFault(fault: Fault, options: Partial<SqsPublisherOptions> = {}, fifo = false) {
  const queue = await aws.queue({ fifo });
  return { queue, publisher: new SqsPublisher(faulty(aws.sqs, fault), { queue: queue.url, ...options }) };
}

interface Entries {
  Entries: { Id: string; MessageBody: string; MessageGroupId?: string }[];
}

describe('reading replies', () => {
  it('fails the entries of Failed according to their codes, and acknowledges the others', async () => {
    const { publisher } = await throughFault(async (_, forward) => {
      await forward();
      return {
        Successful: [{ Id: '3' }, { Id: '0' }],
        Failed: [
          { Id: '1', Code: 'InternalError', Message: 'later', SenderFault: false },
          { Id: '2', Code: 'InvalidMessageContents', SenderFault: true },
        ],
      };
    });
    const results = await publisher.publishBatch(messages(4));
    expect(kinds(results)).toEqual(['ok', 'retryable', 'permanent', 'ok']);
    expect(errorOf(results[1])).toBe('InternalError: later');
  });

  it('fails an entry that is in neither list, or in both', async () => {
    const { publisher } = await throughFault(() =>
      Promise.resolve({ Successful: [{ Id: '0' }, { Id: '2' }], Failed: [{ Id: '2', Code: 'Throttling' }] }),
    );
    const results = await publisher.publishBatch(messages(3));
    expect(kinds(results)).toEqual(['ok', 'retryable', 'retryable']);
    expect(errorOf(results[1])).toContain('neither as successful nor as failed');
  });

  it('fails every entry if the reply is empty', async () => {
    const { publisher } = await throughFault(() => Promise.resolve({}));
    expect(kinds(await publisher.publishBatch(messages(2)))).toEqual(['retryable', 'retryable']);
    await expect(publisher.publish(messages(1)[0] as Message)).rejects.toMatchObject({ code: 'PUBLISH_FAILED' });
  });

  it('assigns a refusal of the queue to the message that it concerns', async () => {
    const queue = await aws.queue({ maximumMessageSize: 1_024 });
    const publisher = new SqsPublisher(aws.sqs, { queue: queue.url });
    const results = await publisher.publishBatch([newMessage('a'), newMessage('x'.repeat(1_100)), newMessage('b')]);
    expect(kinds(results)).toEqual(['ok', 'permanent', 'ok']);
    expect((await aws.drain(queue, 2)).map(({ Body }) => Body)).toEqual(['a', 'b']);
  });

  it('sends messages one by one after their batch was refused, to find the one at fault', async () => {
    const { publisher, queue } = await throughFault(({ input }, forward) => {
      const bad = (input as unknown as Entries).Entries.some(({ MessageBody }) => MessageBody === 'm4');
      return bad ? Promise.reject(sdkError('InvalidParameterValue', 400)) : forward();
    });
    const results = await publisher.publishBatch(messages(12));
    expect(kinds(results)).toEqual(messages(12).map((_, i) => (i === 4 ? 'permanent' : 'ok')));
    expect(await aws.pending(queue)).toBe(11);
  });
});

describe('classifying errors', () => {
  it.each([
    ['ThrottlingException', 400, 'retryable'],
    ['RequestThrottled', 403, 'retryable'],
    ['ServiceUnavailable', 503, 'retryable'],
    ['SomethingNew', 500, 'retryable'],
    ['SomethingNew', 400, 'retryable'],
    ['constructor', 400, 'retryable'],
    ['InvalidParameterValue', 400, 'permanent'],
    ['AWS.SimpleQueueService.BatchRequestTooLong', 400, 'permanent'],
    ['SomethingNew', 413, 'permanent'],
    ['AccessDeniedException', 400, 'connection'],
    ['AuthorizationErrorException', 403, 'connection'],
    ['SomethingNew', 403, 'connection'],
    ['AWS.SimpleQueueService.NonExistentQueue', 400, 'connection'],
    ['NotFoundException', 404, 'connection'],
    ['ExpiredTokenException', 400, 'connection'],
    ['CredentialsProviderError', undefined, 'connection'],
    ['TimeoutError', undefined, 'connection'],
  ])('%s with status %s is %s', async (name, status, kind) => {
    const { publisher } = await throughFault(() => Promise.reject(sdkError(name, status)));
    const cause = { name };
    await expect(publisher.publish(newMessage('x'))).rejects.toMatchObject({ kind, cause });
  });

  it('treats a refused TopicArn as a fault of the destination, not of the message', async () => {
    const refused = Object.assign(new Error('Invalid parameter: TopicArn'), { name: 'InvalidParameterException' });
    const client = faulty(aws.sns, () => Promise.reject(refused));
    const publisher = new SnsPublisher(client, { topic: await aws.topic() });
    expect(kinds(await publisher.publishBatch(messages(2)))).toEqual(['connection', 'connection']);
  });

  it('stops sending at a failure of the connection', async () => {
    let requests = 0;
    const { publisher } = await throughFault(
      () => {
        requests += 1;
        return Promise.reject(sdkError('AccessDenied', 403));
      },
      { concurrency: 2 },
    );
    expect(new Set(kinds(await publisher.publishBatch(messages(100))))).toEqual(new Set(['connection']));
    expect(requests).toBe(2);
  });

  it('names a missing queue and a missing topic', async () => {
    const missing = 'arn:aws:sns:us-east-1:000000000000:missing';
    for (const queue of ['missing', 'arn:aws:sqs:us-east-1:000000000000:missing', 'http://127.0.0.1/0/missing']) {
      const publisher = new SqsPublisher(aws.sqs, { queue });
      await expect(publisher.publish(newMessage('x'))).rejects.toMatchObject({ kind: 'connection' });
    }
    const publisher = new SnsPublisher(aws.sns, { topic: missing });
    await expect(publisher.publish(newMessage('x'))).rejects.toMatchObject({ kind: 'connection' });
  });
});

describe('sending', () => {
  it('finds a queue by name, URL and ARN, and looks it up once', async () => {
    const queue = await aws.queue();
    const asked: unknown[] = [];
    const client = faulty(aws.sqs, (command, forward) => {
      if (command.constructor.name === 'GetQueueUrlCommand') asked.push(command.input);
      return forward();
    });
    for (const given of [queue.url, queue.name, queue.arn]) {
      const publisher = new SqsPublisher(client, { queue: given });
      await publisher.publish(newMessage('x'));
      await publisher.publish(newMessage('x'));
    }
    expect(asked).toEqual([
      { QueueName: queue.name },
      { QueueName: queue.name, QueueOwnerAWSAccountId: '000000000000' },
    ]);
    expect(await aws.pending(queue)).toBe(6);
  });

  it('looks the queue up again after a failed look-up', async () => {
    const queue = await aws.queue();
    let failures = 1;
    const client = faulty(aws.sqs, (command, forward) => {
      const fail = command.constructor.name === 'GetQueueUrlCommand' && failures-- > 0;
      return fail ? Promise.reject(sdkError('ServiceUnavailable', 503)) : forward();
    });
    const publisher = new SqsPublisher(client, { queue: queue.name });
    await expect(publisher.publish(newMessage('x'))).rejects.toMatchObject({ kind: 'retryable' });
    await publisher.publish(newMessage('x'));
    expect(await aws.pending(queue)).toBe(1);
  });

  it('respects the 10 entries and the bytes of a request, and its concurrency', async () => {
    let inFlight = 0;
    let most = 0;
    const sizes: number[] = [];
    const { publisher } = await throughFault(
      async ({ input }, forward) => {
        most = Math.max(most, ++inFlight);
        const { Entries } = input as unknown as Entries;
        expect(Entries.length).toBeLessThanOrEqual(10);
        sizes.push(Entries.reduce((sum, { MessageBody }) => sum + MessageBody.length, 0));
        try {
          return await forward();
        } finally {
          inFlight -= 1;
        }
      },
      { maxBatchBytes: 4_096, concurrency: 3 },
    );
    const all = Array.from({ length: 100 }, (_, i) => newMessage('x'.repeat((i % 13) * 100 + 1)));
    expect(new Set(kinds(await publisher.publishBatch(all)))).toEqual(new Set(['ok']));
    expect(most).toBe(3);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4_096);
  });

  it('counts attributes: a body that only just fits does not fit with them', async () => {
    const { publisher } = await throughFault((_, forward) => forward(), { maxBatchBytes: 2_000 });
    const [fits, not] = [
      newMessage('x'.repeat(1_500)),
      newMessage('x'.repeat(1_500), { metadata: { a: 'y'.repeat(600) } }),
    ];
    const results = await publisher.publishBatch([fits, not]);
    expect(kinds(results)).toEqual(['ok', 'permanent']);
    expect(errorOf(results[1])).toMatch(
      /is too large: 2\d\d\d bytes with its attributes, but the limit \(maxBatchBytes\) is 2000/,
    );
  });

  it('aborts a request in flight, and sends nothing after it', async () => {
    const controller = new AbortController();
    let requests = 0;
    const { publisher } = await throughFault(
      (_, forward) => {
        requests += 1;
        if (requests === 2) controller.abort(new Error('enough'));
        return forward();
      },
      { concurrency: 1 },
    );
    const results = await publisher.publishBatch(messages(50), { signal: controller.signal });
    expect(kinds(results)).toEqual([...Array<string>(10).fill('ok'), ...Array<string>(40).fill('retryable')]);
    expect(requests).toBe(2);
    expect(errorOf(results[10])).toContain('aborted');
  });

  it('sends the id under messageIdKey, and text unchanged', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url, messageIdKey: 'Id' }).publish(
      newMessage('{"a":1}', { id: 'one' }),
    );
    const [received] = await aws.drain(queue, 1);
    expect(received?.Body).toBe('{"a":1}');
    expect(received?.MessageAttributes?.['Id']).toMatchObject({ DataType: 'String', StringValue: 'one' });
  });
});

describe('FIFO', () => {
  it('takes the group from the key, from groupIdKey, from defaultGroupId, in that order', async () => {
    const queue = await aws.queue({ fifo: true });
    const publisher = new SqsPublisher(aws.sqs, { queue: queue.url, groupIdKey: 'tenant', defaultGroupId: 'rest' });
    await publisher.publish(newMessage('1', { id: 'i1', key: 'k', metadata: { tenant: 't' } }));
    await publisher.publish(newMessage('2', { id: 'i2', metadata: { tenant: 't' } }));
    await publisher.publish(newMessage('3', { id: 'i3', metadata: { tenant: '' } }));
    const received = await aws.drain(queue, 3);
    const ids = received.map(({ Attributes }) => [Attributes?.MessageGroupId, Attributes?.MessageDeduplicationId]);
    expect(ids.sort()).toEqual([
      ['k', 'i1'],
      ['rest', 'i3'],
      ['t', 'i2'],
    ]);
  });

  it('refuses a message without a group permanently', async () => {
    const queue = await aws.queue({ fifo: true });
    const publisher = new SqsPublisher(aws.sqs, { queue: queue.url, groupIdKey: 'tenant' });
    const results = await publisher.publishBatch([newMessage('x'), newMessage('x', { key: 'k' })]);
    expect(kinds(results)).toEqual(['permanent', 'ok']);
    expect(errorOf(results[0])).toMatch(/no key and no metadata "tenant", and no defaultGroupId/);
  });

  it('sends no message of a group behind a failure, although AWS would have accepted it', async () => {
    const sent: string[] = [];
    const fail: Fault = async ({ input }, forward) => {
      const { Entries } = input as unknown as Entries;
      sent.push(...Entries.map(({ MessageBody }) => MessageBody));
      const bad = Entries.find(({ MessageBody }) => MessageBody === 'a2');
      const reply = (await forward()) as { Successful: { Id: string }[] };
      if (bad === undefined) return reply;
      return {
        Successful: reply.Successful.filter(({ Id }) => Id !== bad.Id),
        Failed: [{ Id: bad.Id, Code: 'InternalError' }],
      };
    };
    const { publisher } = await throughFault(fail, {}, true);
    const batch = ['a1', 'a2', 'b1', 'a3', 'b2'].map((name) => newMessage(name, { key: name.slice(0, 1) }));
    expect(kinds(await publisher.publishBatch(batch))).toEqual(['ok', 'retryable', 'ok', 'retryable', 'ok']);
    expect(sent).not.toContain('a3');
  });

  it('never has two messages of one group in flight', async () => {
    const inFlight = new Set<string>();
    const { publisher } = await throughFault(
      async ({ input }, forward) => {
        const groups = (input as unknown as Entries).Entries.map(({ MessageGroupId }) => MessageGroupId ?? '');
        for (const group of groups) {
          expect(inFlight).not.toContain(group);
          inFlight.add(group);
        }
        const reply = await forward();
        for (const group of groups) inFlight.delete(group);
        return reply;
      },
      { defaultGroupId: 'rest' },
      true,
    );
    const batch = Array.from({ length: 60 }, (_, i) =>
      newMessage('x', i % 3 === 0 ? {} : { key: `k${String(i % 5)}` }),
    );
    expect(new Set(kinds(await publisher.publishBatch(batch)))).toEqual(new Set(['ok']));
  });
});

describe('options', () => {
  const sqs = (options: Partial<Record<keyof SqsPublisherOptions, unknown>>) => () =>
    new SqsPublisher(aws.sqs, { queue: 'q', ...options } as SqsPublisherOptions);
  const sns = (options: Partial<Record<keyof SnsPublisherOptions, unknown>>) => () =>
    new SnsPublisher(aws.sns, { topic: 'arn:aws:sns:eu-west-1:111122223333:t', ...options } as SnsPublisherOptions);

  it.each([
    ['an empty queue', sqs({ queue: '' }), 'queue must be the name, the URL or the ARN of an SQS queue, got ""'],
    ['a bad queue', sqs({ queue: 'a b' }), 'got "a b"'],
    ['a topic by name', sns({ topic: 'orders' }), 'topic must be the ARN of an SNS topic, got "orders"'],
    ['no concurrency', sqs({ concurrency: 0 }), 'concurrency must be a whole number from 1 to 1000, got 0 (number)'],
    ['text for a number', sqs({ concurrency: '4' }), 'got "4"'],
    ['too small a batch', sns({ maxBatchBytes: 10 }), 'maxBatchBytes must be a whole number'],
    [
      'a reserved id key',
      sqs({ messageIdKey: 'messenger' }),
      'other than "messenger", "topic", "key", got "messenger"',
    ],
    ['the id as topic', sns({ messageIdKey: 'topic' }), 'got "topic"'],
    [
      'attribute keys that find no room',
      sns({ attributeKeys: 'abcdefg'.split('') }),
      'at most 6 metadata keys, got an array',
    ],
    ['an attribute key of AWS', sns({ attributeKeys: ['a', 'AWS.b'] }), 'attributeKeys must be attribute names'],
    ['no array of attribute keys', sqs({ attributeKeys: 'tenant' }), 'got "tenant"'],
    ['an id key of AWS', sqs({ messageIdKey: 'AWS.id' }), 'got "AWS.id"'],
    ['an empty id key', sqs({ messageIdKey: '' }), 'got ""'],
    ['a group without FIFO', sqs({ defaultGroupId: 'g' }), 'defaultGroupId is only for FIFO destinations'],
    ['a bad default group', sqs({ queue: 'q.fifo', defaultGroupId: 'a b' }), 'got "a b"'],
    ['a misspelt option', sqs({ queueUrl: 'q' } as object), 'unknown option "queueUrl"'],
    ['no options', () => new SqsPublisher(aws.sqs, undefined as never), 'options must be an object, got undefined'],
    ['no client', () => new SqsPublisher(undefined as never, { queue: 'q' }), 'client must be an SQSClient'],
    ['no client', () => new SnsPublisher({} as never, { topic: 't' }), 'client must be an SNSClient'],
  ])('refuses %s', (_, create, message) => {
    expect(create).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining(message) as string }),
    );
  });
});

it('accepts the clients of the SDK without a cast (a type test)', () => {
  const real = { credentials: { accessKeyId: 'x', secretAccessKey: 'x' }, region: 'eu-west-1' };
  const sqs: ConstructorParameters<typeof SqsPublisher>[0] = new SQSClient(real);
  const sns: ConstructorParameters<typeof SnsPublisher>[0] = new SNSClient(real);
  // @ts-expect-error a client of another service has no such commands
  const wrong: ConstructorParameters<typeof SqsPublisher>[0] = new SNSClient(real);
  expect([sqs, sns, wrong]).toHaveLength(3);
});

import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { PublishCommand } from '@aws-sdk/client-sns';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import type { Handler } from '../../../src/core/contracts/subscriber.js';
import { SqsPublisher } from '../../../src/brokers/aws/sqs/publisher.js';
import { SqsSubscriber, type SqsSubscriberOptions } from '../../../src/brokers/aws/sqs/subscriber.js';
import { gate, until } from '../../../src/testing/conformance/assert.js';
import { startAws, type TestAws, type TestQueue } from '../../support/aws.js';
import { faulty, sdkError, type Fault, type SentCommand } from '../../support/aws-faults.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

/** A subscription that runs until `stop`, with a fault in between. */
function subscribe(
  queue: TestQueue,
  handler: Handler,
  options: Partial<SqsSubscriberOptions> = {},
  fault: Fault = (_, forward) => forward(),
) {
  const errors: Error[] = [];
  const commands: SentCommand[] = [];
  const client = faulty(aws.sqs, (command, forward) => {
    commands.push(command);
    return fault(command, forward);
  });
  const errorLogger = { error: (error: Error) => errors.push(error) };
  const subscriber = new SqsSubscriber(client, { queue: queue.url, errorLogger, waitTimeSeconds: 1, ...options });
  const controller = new AbortController();
  const done = subscriber.subscribe({ name: 'test', handler }, { signal: controller.signal });
  const stop = (): Promise<void> => {
    controller.abort();
    return done;
  };
  return { errors, commands, stop };
}

/** The messages that a subscriber makes of the content of a queue. */
async function received(
  queue: TestQueue,
  count: number,
  options: Partial<SqsSubscriberOptions> = {},
): Promise<Message[]> {
  const got: Message[] = [];
  const { stop, errors } = subscribe(queue, (message) => void got.push(message), options);
  await until(() => got.length >= count, `${String(count)} messages`);
  await stop();
  expect(errors).toEqual([]);
  return got;
}

const text = (message: Message | undefined): string => new TextDecoder().decode(message?.payload);
const isCommand = (command: SentCommand, name: string): boolean => command.constructor.name === `${name}Command`;

interface VisibilityEntries {
  Entries: { ReceiptHandle: string; VisibilityTimeout: number }[];
}
const visibilities = (commands: readonly SentCommand[]): number[] =>
  commands
    .filter((command) => isCommand(command, 'ChangeMessageVisibilityBatch'))
    .flatMap(({ input }) => (input as unknown as VisibilityEntries).Entries.map((entry) => entry.VisibilityTimeout));

describe('decoding', () => {
  it.each([true, false])('accepts what another producer sent to SNS (raw delivery: %s)', async (raw) => {
    const [queue, topic] = [await aws.queue(), await aws.topic()];
    await aws.subscribe(topic, queue, { raw });
    const attribute = (StringValue: string) => ({ DataType: 'String', StringValue });
    const MessageAttributes = { a: attribute('1'), 'message-id': attribute('given'), messenger: attribute('not ours') };
    await aws.sns.send(new PublishCommand({ TopicArn: topic, Message: 'grüße', MessageAttributes }));
    const [message] = await received(queue, 1);
    expect(text(message)).toBe('grüße');
    expect(message).toMatchObject({ id: 'given', metadata: { a: '1', messenger: 'not ours' }, published: true });
  });

  it('takes the id from SNS or SQS if there is no attribute', async () => {
    const [queue, topic] = [await aws.queue(), await aws.topic()];
    await aws.subscribe(topic, queue, { raw: false });
    const { MessageId: first } = await aws.sns.send(new PublishCommand({ TopicArn: topic, Message: 'by SNS' }));
    const body = 'by SQS';
    const { MessageId: second } = await aws.sqs.send(
      new SendMessageCommand({ QueueUrl: queue.url, MessageBody: body }),
    );
    const messages = await received(queue, 2);
    const found = messages.map((message) => [message.id, text(message)]).sort();
    expect(found).toEqual(
      [
        [first, 'by SNS'],
        [second, 'by SQS'],
      ].sort(),
    );
    expect(messages.every(({ at }) => Math.abs(Date.now() - at.getTime()) < 60_000)).toBe(true);
  });

  it('does not mistake a payload that looks like an SNS envelope for one', async () => {
    const queue = await aws.queue();
    const payload = JSON.stringify({ Type: 'Notification', MessageId: 'm', TopicArn: 't', Message: 'inner' });
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage(payload, { id: 'outer' }));
    const [message] = await received(queue, 1);
    expect([message?.id, text(message)]).toEqual(['outer', payload]);
  });

  it('hands over any message: broken JSON, odd envelopes, binary attributes', async () => {
    const queue = await aws.queue();
    const bodies = ['{', '{"Type":"Notification"}', '{"messenger":1}', 'null', '[]'];
    for (const MessageBody of bodies) await aws.sqs.send(new SendMessageCommand({ QueueUrl: queue.url, MessageBody }));
    const binary = { DataType: 'Binary', BinaryValue: new Uint8Array([0, 255]) };
    const envelope = { DataType: 'String', StringValue: '{"at":"never","encoding":"base64"}' };
    await aws.sqs.send(
      new SendMessageCommand({
        QueueUrl: queue.url,
        MessageBody: 'bytes',
        MessageAttributes: { binary, messenger: envelope },
      }),
    );
    const messages = await received(queue, bodies.length + 1);
    expect(messages.map(text).sort()).toEqual([...bodies, 'bytes'].sort());
    expect(messages.find((message) => text(message) === 'bytes')?.metadata['binary']).toBe('AP8=');
  });

  it('takes the id from messageIdKey, and the key of another producer’s FIFO message from its group', async () => {
    const queue = await aws.queue({ fifo: true });
    const MessageAttributes = { Id: { DataType: 'String', StringValue: 'given' } };
    const fifo = { MessageGroupId: 'group', MessageDeduplicationId: 'd' };
    await aws.sqs.send(new SendMessageCommand({ QueueUrl: queue.url, MessageBody: 'x', MessageAttributes, ...fifo }));
    expect((await received(queue, 1, { messageIdKey: 'Id' }))[0]).toMatchObject({
      id: 'given',
      key: 'group',
      metadata: {},
    });
  });
});

describe('acknowledging', () => {
  it('retries a failed delete, logs it, and then stays quiet', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage('x', { id: 'one' }));
    let deletes = 0;
    const fault: Fault = (command, forward) => {
      if (!isCommand(command, 'DeleteMessageBatch')) return forward();
      deletes += 1;
      if (deletes === 1) return Promise.reject(sdkError('ServiceUnavailable', 503));
      if (deletes === 2) return Promise.resolve({ Failed: [{ Id: '0', Code: 'InternalError' }] });
      // Neither list names the entry.
      return deletes === 3 ? Promise.resolve({ Successful: [] }) : forward();
    };
    const { errors, stop } = subscribe(queue, () => undefined, {}, fault);
    await until(async () => (await aws.pending(queue)) === 0, 'the message is deleted');
    await stop();
    expect(deletes).toBe(4);
    expect(errors).toHaveLength(3);
    expect(errors[0]?.message).toContain('message one was handled but not deleted (attempt 1 of 5)');
  });

  it('gives up a delete that keeps failing, and continues', async () => {
    const queue = await aws.queue();
    const publisher = new SqsPublisher(aws.sqs, { queue: queue.url });
    await publisher.publish(newMessage('x'));
    const handled: string[] = [];
    const fault: Fault = (command, forward) =>
      isCommand(command, 'DeleteMessageBatch') && handled.length === 1
        ? Promise.reject(sdkError('ServiceUnavailable', 503))
        : forward();
    const { errors, stop } = subscribe(queue, (message) => void handled.push(message.id), { concurrency: 1 }, fault);
    await until(() => errors.length === 5, 'five attempts');
    await publisher.publish(newMessage('y'));
    await until(() => handled.length === 2, 'the next message');
    await stop();
    expect(errors).toHaveLength(5);
  });
});

describe('failures', () => {
  it('makes a failed message visible after retryDelay, in whole seconds', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage('x'));
    let calls = 0;
    const start = Date.now();
    const fail: Handler = () => {
      calls += 1;
      if (calls === 1) throw new Error('boom');
    };
    const { commands, errors, stop } = subscribe(queue, fail, { retryDelay: 300 });
    await until(() => calls === 2, 'the message comes again');
    expect(Date.now() - start).toBeGreaterThanOrEqual(900);
    expect(Date.now() - start).toBeLessThan(10_000);
    await stop();
    expect(visibilities(commands)).toEqual([1]);
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^subscription test: message .* failed: boom$/),
    ]);
  });

  it('survives an error logger that throws, and a handler that throws something other than an error', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage('x'));
    let calls = 0;
    const fail: Handler = () => {
      calls += 1;
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- handlers do
      if (calls === 1) throw undefined;
    };
    const broken = {
      error() {
        throw new Error('the logger is broken');
      },
    };
    const { stop } = subscribe(queue, fail, { retryDelay: 0, errorLogger: broken });
    await until(async () => calls === 2 && (await aws.pending(queue)) === 0, 'the message is handled');
    await stop();
  });

  it('gives back the messages of a group in hand when one fails, before that one can be delivered again', async () => {
    // The emulator hands out one message of a group at a time, but SQS up to ten. So this is a standard queue that is
    // made to look like a FIFO one.
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publishBatch(
      ['a1', 'a2', 'b1', 'a3'].map((name) => newMessage(name, { metadata: { group: name.slice(0, 1) } })),
    );
    const fault: Fault = async (command, forward) => {
      command.input['QueueUrl'] = queue.url;
      const reply = (await forward()) as { Messages?: { Attributes?: object; MessageAttributes?: Groups }[] };
      for (const message of reply.Messages ?? []) {
        message.Attributes = {
          ...message.Attributes,
          MessageGroupId: message.MessageAttributes?.['group']?.StringValue,
        };
      }
      return reply;
    };
    type Groups = Record<string, { StringValue?: string } | undefined>;
    const handled: string[] = [];
    const { opened, open } = gate();
    const handler: Handler = async (message) => {
      handled.push(text(message));
      await opened;
      if (handled.filter((name) => name === 'a1').length === 1 && text(message) === 'a1') throw new Error('boom');
    };
    const fifo = { ...queue, url: `${queue.url}.fifo` };
    const { commands, stop } = subscribe(fifo, handler, { concurrency: 4, visibilityTimeoutSeconds: 2 }, fault);
    await until(() => handled.length === 2, 'the first of each group runs');
    expect(handled.sort()).toEqual(['a1', 'b1']);
    open();
    await until(() => visibilities(commands).filter((seconds) => seconds === 0).length === 2, 'two are given back');
    await until(async () => (await aws.pending(queue)) === 0, 'all are handled');
    await stop();
    expect(handled.filter((name) => name === 'a1')).toHaveLength(2);
    expect(handled).toHaveLength(5);
  });
});

describe('stopping', () => {
  it('gives back messages that were not started, and waits for running handlers', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publishBatch(['1', '2', '3'].map((name) => newMessage(name)));
    const { opened, open } = gate();
    let running = 0;
    const handler: Handler = async () => {
      running += 1;
      await opened;
    };
    const fault: Fault = async (command, forward) => {
      command.input['QueueUrl'] = queue.url;
      const reply = (await forward()) as { Messages?: { Attributes?: object }[] };
      for (const message of reply.Messages ?? []) message.Attributes = { MessageGroupId: 'one' };
      return reply;
    };
    const fifo = { ...queue, url: `${queue.url}.fifo` };
    const { stop, commands } = subscribe(fifo, handler, { concurrency: 3 }, fault);
    await until(() => running === 1, 'one runs');
    const stopped = stop();
    await until(() => visibilities(commands).length === 2, 'two are given back');
    expect(visibilities(commands)).toEqual([0, 0]);
    open();
    await stopped;
    expect(running).toBe(1);
    expect(await aws.pending(queue)).toBe(2);
    expect(await aws.drain(queue, 2)).toHaveLength(2);
  });

  it('does not wait for ever for a handler that ignores its signal, and logs that', async () => {
    const queue = await aws.queue();
    await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage('x', { id: 'stuck' }));
    const { opened, open } = gate();
    let aborted: AbortSignal | undefined;
    const handler: Handler = (_, { signal }) => {
      aborted = signal;
      return opened;
    };
    const { stop, errors } = subscribe(queue, handler, { stopTimeout: 50, concurrency: 1 });
    await until(() => aborted !== undefined, 'the handler runs');
    await stop();
    expect(aborted?.aborted).toBe(true);
    expect(errors.at(-1)).toMatchObject({ code: 'TIMEOUT', message: expect.stringContaining('stuck') as string });
    expect(await aws.pending(queue)).toBe(1);
    open();
  });

  it('resolves at once if the signal has already aborted', async () => {
    const queue = await aws.queue();
    const subscriber = new SqsSubscriber(aws.sqs, { queue: queue.url });
    const handler = (): void => undefined;
    await subscriber.subscribe({ name: 'x', handler }, { signal: AbortSignal.abort() });
  });
});

it('finds a queue that is created after the subscription has started', async () => {
  const name = 'made-later';
  const errors: Error[] = [];
  const handled: string[] = [];
  const errorLogger = { error: (error: Error) => errors.push(error) };
  const controller = new AbortController();
  const done = new SqsSubscriber(aws.sqs, { queue: name, errorLogger, waitTimeSeconds: 1 }).subscribe(
    { name: 'late', handler: (message) => void handled.push(text(message)) },
    { signal: controller.signal },
  );
  await until(() => errors.length > 0, 'an error is logged');
  expect(errors[0]?.message).toMatch(/^subscription late: could not receive: /);
  const queue = await aws.queue({ name });
  await new SqsPublisher(aws.sqs, { queue: queue.url }).publish(newMessage('x'));
  await until(() => handled.length === 1, 'the message');
  controller.abort();
  await done;
});

describe('options', () => {
  it.each([
    [{ queue: '' }, 'queue must be'],
    [{ concurrency: 0 }, 'concurrency must be a whole number from 1'],
    [{ waitTimeSeconds: 21 }, 'waitTimeSeconds must be a whole number from 0 to 20, got 21'],
    [{ visibilityTimeoutSeconds: 1 }, 'visibilityTimeoutSeconds must be'],
    [{ retryDelay: -1 }, 'retryDelay must be'],
    [{ stopTimeout: 1.5 }, 'stopTimeout must be'],
    [{ messageIdKey: 'a b' }, 'messageIdKey must be'],
    [{ visibilityTimeout: 30 }, 'unknown option "visibilityTimeout"'],
  ])('refuses %o', (options, message) => {
    const create = () => new SqsSubscriber(aws.sqs, { queue: 'q', ...options });
    expect(create).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining(message) as string }),
    );
  });

  it('accepts the client of the SDK without a cast (a type test)', () => {
    const client: ConstructorParameters<typeof SqsSubscriber>[0] = new SQSClient({ region: 'eu-west-1' });
    expect(new SqsSubscriber(client, { queue: 'q' })).toBeInstanceOf(SqsSubscriber);
  });
});

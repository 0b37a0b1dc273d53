/** All parts of a message arrive unchanged, whatever AWS accepts of them in attributes and ids. */
import { SendMessageCommand, type Message as SqsMessage } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import { SnsPublisher, type SnsPublisherOptions } from '../../../src/brokers/aws/sns.js';
import { SqsPublisher } from '../../../src/brokers/aws/sqs/publisher.js';
import { SqsSubscriber } from '../../../src/brokers/aws/sqs/subscriber.js';
import { until } from '../../../src/testing/conformance/assert.js';
import { decodeDelivery } from '../../../src/brokers/aws/wire/decode.js';
import { startAws, type TestAws, type TestQueue } from '../../support/aws.js';
import { faulty } from '../../support/aws-faults.js';
import { decodeAsBefore } from '../../support/aws-before.js';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.stop());

type Ways = 'SQS' | 'SNS, raw delivery' | 'SNS, in its envelope';
const WAYS: Ways[] = ['SQS', 'SNS, raw delivery', 'SNS, in its envelope'];

/** A publisher, and the queue where its messages arrive. */
async function way(name: Ways, fifo = false, options: Partial<SnsPublisherOptions> = {}) {
  const queue = await aws.queue({ fifo });
  if (name === 'SQS') return { queue, publisher: new SqsPublisher(aws.sqs, { queue: queue.url, ...options }) };
  const topic = await aws.topic({ fifo });
  await aws.subscribe(topic, queue, { raw: name === 'SNS, raw delivery' });
  return { queue, publisher: new SnsPublisher(aws.sns, { topic, ...options }) };
}

/** The messages of a queue as a subscriber hands them over. */
async function received(queue: TestQueue, count: number): Promise<Message[]> {
  const messages: Message[] = [];
  const controller = new AbortController();
  const subscriber = new SqsSubscriber(aws.sqs, { queue: queue.url, waitTimeSeconds: 1 });
  const done = subscriber.subscribe(
    { name: 'test', handler: (message) => void messages.push(message) },
    { signal: controller.signal },
  );
  await until(() => messages.length >= count, `${String(count)} messages`);
  controller.abort();
  await done;
  return messages;
}

const attributesOf = ({ MessageAttributes = {} }: SqsMessage): Record<string, string | undefined> =>
  Object.fromEntries(Object.entries(MessageAttributes).map(([name, { StringValue }]) => [name, StringValue]));
const metadata = (count: number): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`entry-${String(i)}`, String(i)]));
const text = ({ payload }: Message): string => new TextDecoder().decode(payload);
/** Everything that a consumer sees of a message. */
const same = ({ id, topic, key, at, metadata: entries, payload }: Message): unknown => ({
  id,
  topic,
  key,
  at,
  metadata: Object.entries(entries).sort(),
  payload: [...payload],
});

describe.each(WAYS)('metadata by %s', (name) => {
  const odd = {
    empty: '',
    'white space': 'x',
    ключ: 'grüße 漢字 😀',
    control: 'a\u0007b\u001f',
    noncharacters: '\ufffe\uffff',
    'a..b': 'dots',
    '.a': 'a dot',
    'AWS.trace': 'reserved',
    ['x'.repeat(257)]: 'a long name',
    'message-id': 'not the id',
    messenger: '{"at":"2020-01-01T00:00:00.000Z","topic":"no"}',
    topic: 'not the topic',
    key: 'not the key',
    own: 'x',
    constructor: 'c',
  };
  const cases: readonly (readonly [string, Record<string, string>])[] = [
    ...[0, 6, 7, 8, 9, 20].map((count) => [`${String(count)} entries`, metadata(count)] as const),
    ['a thousand entries', metadata(1_000)],
    ['what attributes cannot carry', odd],
    ['both', { ...metadata(20), ...odd }],
    ['an entry named __proto__', JSON.parse('{"__proto__":"p","b":"c"}') as Record<string, string>],
  ];

  it.each(cases)('arrives as it was: %s', async (_, entries) => {
    const { queue, publisher } = await way(name);
    const at = new Date('2020-02-03T04:05:06.789Z');
    const messages = [
      newMessage('with both', { topic: 'order.created', key: 'order 1', metadata: entries, at }),
      newMessage('with neither', { metadata: entries, at }),
      newMessage(new Uint8Array([0, 255, 128]), { topic: 'bell \u0007', key: 'ü'.repeat(200), metadata: entries, at }),
      newMessage('with an odd id', { id: 'nul is refused, bell \u0007 is not', metadata: entries, at }),
    ];
    for (const message of messages) await publisher.publish(message);
    const got = await received(queue, messages.length);
    const byId = (list: readonly Message[]) => [...list].sort((a, b) => (a.id < b.id ? -1 : 1)).map(same);
    expect(byId(got)).toEqual(byId(messages));
  });
});

describe('attributes', () => {
  /** The attributes of a message in a queue. */
  async function sent(message: Message, options: Partial<SnsPublisherOptions> = {}) {
    const { queue, publisher } = await way('SNS, raw delivery', false, options);
    await publisher.publish(message);
    const [delivery] = await aws.drain(queue, 1);
    if (delivery === undefined) throw new Error('nothing arrived');
    return attributesOf(delivery);
  }

  it('are never more than ten: a raw delivery to SQS would be dropped', async () => {
    const attributes = await sent(newMessage('x', { topic: 't', key: 'k', metadata: metadata(20) }));
    expect(Object.keys(attributes)).toHaveLength(10);
    expect(attributes).toMatchObject({ topic: 't', key: 'k', 'entry-0': '0', 'entry-5': '5' });
    expect(Object.keys(await sent(newMessage('x', { metadata: metadata(20) })))).toHaveLength(10);
  });

  it('carry topic and key before all metadata, whatever the names of these are', async () => {
    const given = { ...metadata(20), topic: 'not the topic', key: 'not the key' };
    const message = newMessage('x', { topic: 't', key: 'white space ü', metadata: given });
    expect(await sent(message)).toMatchObject({ topic: 't', key: 'white space ü' });
    // No metadata entry may pass for a topic that attributes cannot carry.
    const odd = await sent(newMessage('x', { topic: 'bell \u0007', key: 'k', metadata: given }));
    expect(odd['topic']).toBeUndefined();
    expect(odd['key']).toBe('k');
    // Without a topic the name is free.
    expect(await sent(newMessage('x', { metadata: given }), { attributeKeys: ['topic'] })).toMatchObject({
      topic: 'not the topic',
    });
  });

  it('carry the entries of attributeKeys first, and those that defineOutbox adds last', async () => {
    const given = { 'content-type': 'application/json', 'schema-version': '2', ...metadata(7), tenant: 'acme' };
    const message = newMessage('x', { topic: 't', key: 'k', metadata: given });
    const attributes = await sent(message, { attributeKeys: ['tenant', 'entry-6'] });
    const names = ['tenant', 'entry-6', 'entry-0', 'entry-1', 'entry-2', 'entry-3'];
    expect(Object.keys(attributes).sort()).toEqual([...names, 'key', 'message-id', 'messenger', 'topic'].sort());
  });

  it.each([true, false])('let a filter policy select by topic and by key (raw delivery: %s)', async (raw) => {
    const topic = await aws.topic();
    const [created, one] = [await aws.queue(), await aws.queue()];
    await aws.subscribe(topic, created, { raw, filter: { topic: [{ prefix: 'order.cr' }] } });
    await aws.subscribe(topic, one, { raw, filter: { key: ['order 1'] } });
    const some = [
      newMessage('1', { id: '1', topic: 'order.created', key: 'order 1', metadata: metadata(20) }),
      newMessage('2', { id: '2', topic: 'order.paid', key: 'order 1', metadata: { topic: 'order.created' } }),
      newMessage('3', { id: '3', topic: 'order.created', key: 'order 2', metadata: { key: 'order 1' } }),
      newMessage('4', { id: '4' }),
    ];
    const results = await new SnsPublisher(aws.sns, { topic }).publishBatch(some);
    expect(results.every(({ acknowledged }) => acknowledged)).toBe(true);
    const ids = async (queue: TestQueue) => (await received(queue, 2)).map(({ id }) => id).sort();
    expect([await ids(created), await ids(one)]).toEqual([
      ['1', '3'],
      ['1', '2'],
    ]);
  });
});

describe('together with the previous version', () => {
  it.each(WAYS)('reads unchanged what that version wrote, with %s', async (name) => {
    const { queue } = await way(name);
    const attribute = (StringValue: string) => ({ DataType: 'String', StringValue });
    const envelope = {
      at: '2020-02-03T04:05:06.789Z',
      topic: 't',
      key: 'k',
      metadata: { empty: '', 'message-id': 'x' },
    };
    await aws.sqs.send(
      new SendMessageCommand({
        QueueUrl: queue.url,
        MessageBody: 'x',
        MessageAttributes: {
          topic: attribute('t'),
          key: attribute('another'),
          'message-id': attribute('1'),
          messenger: attribute(JSON.stringify(envelope)),
        },
      }),
    );
    const [message] = await received(queue, 1);
    expect(message).toMatchObject({ id: '1', topic: 't', key: 'k', at: new Date(envelope.at) });
    expect(message?.metadata).toEqual({ topic: 't', key: 'another', empty: '', 'message-id': 'x' });
  });

  it.each(WAYS)(
    'lets that version read what it could carry, with topic and key among the metadata, with %s',
    async (name) => {
      const { queue, publisher } = await way(name);
      const entries = { ...metadata(8), empty: '' };
      const messages = [
        newMessage('1', { id: '1', topic: 't', key: 'k', metadata: entries }),
        newMessage('2', { id: '2', topic: 't', key: 'k', metadata: { topic: 'mine', key: 'mine too' } }),
        newMessage(new Uint8Array([0, 255]), { id: '3', metadata: entries }),
      ];
      for (const message of messages) await publisher.publish(message);
      const got = (await aws.drain(queue, 3)).map((delivery) => decodeAsBefore(delivery));
      const byId = got.sort((a, b) => (a.id < b.id ? -1 : 1)).map(same);
      const [first, ...others] = messages.map(same);
      const more = Object.entries({ ...entries, topic: 't', key: 'k' }).sort();
      expect(byId).toEqual([{ ...(first as object), metadata: more }, ...others]);
    },
  );
});

describe('sizes', () => {
  it('carries 300 kB and 1,000,000 bytes to SQS', async () => {
    const { queue, publisher } = await way('SQS');
    for (const size of [300_000, 1_000_000]) await publisher.publish(newMessage('ü'.repeat(size / 2)));
    expect((await received(queue, 2)).map(({ payload }) => payload.byteLength).sort()).toEqual([1_000_000, 300_000]);
  });

  it('splits a batch whose messages exceed 1 MiB', async () => {
    const queue = await aws.queue();
    const sums: number[] = [];
    const client = faulty(aws.sqs, ({ input }, forward) => {
      const { Entries } = input as unknown as { Entries: { MessageBody: string }[] };
      sums.push(Entries.reduce((sum, { MessageBody }) => sum + MessageBody.length, 0));
      return forward();
    });
    const messages = Array.from({ length: 7 }, () => newMessage('x'.repeat(300_000), { metadata: metadata(20) }));
    const results = await new SqsPublisher(client, { queue: queue.url }).publishBatch(messages);
    expect(results.map(({ acknowledged }) => acknowledged)).toEqual(messages.map(() => true));
    expect(sums.sort()).toEqual([300_000, 900_000, 900_000]);
  });

  it('refuses a larger message at once, and says what would accept it', async () => {
    const fail = () => Promise.reject(new Error('nothing is to be sent'));
    const sns = new SnsPublisher(faulty(aws.sns, fail), { topic: await aws.topic() });
    const sqs = new SqsPublisher(faulty(aws.sqs, fail), { queue: 'http://127.0.0.1/q' });
    const publishing = (publisher: SnsPublisher | SqsPublisher, size: number) =>
      publisher.publish(newMessage('x'.repeat(size)));
    const permanent = (text: string) => ({ kind: 'permanent', message: expect.stringContaining(text) as string });
    await expect(publishing(sns, 300_000)).rejects.toMatchObject(permanent('MaximumMessageSize of the topic'));
    await expect(publishing(sqs, 1_048_576)).rejects.toMatchObject(permanent('send a reference to it'));
    // A topic that is configured for it accepts the message.
    const raised = new SnsPublisher(
      faulty(aws.sns, () => Promise.resolve({ Successful: [{ Id: '0' }] })),
      { topic: await aws.topic(), maxBatchBytes: 1_048_576 },
    );
    await publishing(raised, 1_000_000);
  });
});

describe.each<Ways>(['SQS', 'SNS, raw delivery'])('FIFO ids by %s', (name) => {
  const KEYS = [
    'order 1',
    'größe',
    'x'.repeat(129),
    '😀',
    'tab\t',
    `sha256:${'0'.repeat(64)}`,
    'plain',
    'x'.repeat(128),
  ];

  it('can be made of any key and any id, and keep the order of a key', async () => {
    const { queue, publisher } = await way(name, true);
    const messages = Array.from({ length: KEYS.length * 5 }, (_, i) =>
      newMessage(String(i), { id: `id ${String(i)} ü`, key: KEYS[i % KEYS.length] as string }),
    );
    const results = await publisher.publishBatch(messages);
    expect(results.map(({ acknowledged }) => acknowledged)).toEqual(messages.map(() => true));
    const got = await received(queue, messages.length);
    const ofKey = (list: readonly Message[], key: string) => list.filter((each) => each.key === key).map(text);
    for (const key of KEYS) expect(ofKey(got, key)).toEqual(ofKey(messages, key));
    expect(got.map(({ id }) => id).sort()).toEqual(messages.map(({ id }) => id).sort());
  });

  it('are valid, the same every time, and different for each key', async () => {
    const { queue, publisher } = await way(name, true);
    const publish = (key: string, round: number) =>
      publisher.publish(newMessage(key, { id: `${key} ${String(round)}`, key }));
    // The hash of a key that AWS refuses, used as somebody's own key.
    await publish('a b', 0);
    const [first] = await aws.drain(queue, 1);
    const hashed = first?.Attributes?.MessageGroupId ?? '';
    expect(hashed).toBe('sha256:c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65');
    const keys = [...KEYS, 'a b', hashed];
    for (const round of [1, 2]) for (const key of keys) await publish(key, round);
    const groups = new Map<string, Set<string>>();
    for (const delivery of await aws.drain(queue, keys.length * 2)) {
      const { MessageGroupId = '', MessageDeduplicationId = '' } = delivery.Attributes ?? {};
      expect([MessageGroupId, MessageDeduplicationId]).toEqual([
        expect.stringMatching(/^[!-~]{1,128}$/),
        expect.stringMatching(/^[!-~]{1,128}$/),
      ]);
      const { key = '' } = decodeDelivery(delivery, 'message-id');
      groups.set(key, (groups.get(key) ?? new Set()).add(MessageGroupId));
    }
    expect(groups.size).toBe(keys.length);
    expect(new Set([...groups.values()].map((of) => [...of].join())).size).toBe(keys.length);
    expect([...groups.values()].map(({ size }) => size)).toEqual(keys.map(() => 1));
    expect([...(groups.get('plain') ?? [])]).toEqual(['plain']);
  });

  it('drop a message that is sent twice', async () => {
    const { queue, publisher } = await way(name, true);
    const message = newMessage('x', { id: 'ü'.repeat(200), key: 'k' });
    for (const each of [message, message, newMessage('x', { id: 'ü'.repeat(201), key: 'k' })])
      await publisher.publish(each);
    expect(await aws.drain(queue, 2)).toHaveLength(2);
  });
});

import { type } from 'arktype';
import * as v from 'valibot';
import { describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import {
  defineOutbox,
  defineTopics,
  newMessage,
  subscribe,
  type Inbox,
  type Message,
  type Publisher,
  type Subscriber,
  type Subscription,
  MessengerError,
} from '../../src/index.js';
import { payloadOf } from '../../src/core/outbox/topics.js';
import { MemoryStore } from '../../src/stores/memory/index.js';
import { PlainStore } from '../support/plain-store.js';

const Order = z.object({ id: z.string(), total: z.number().default(0), at: z.coerce.date() });
const at = new Date('2026-01-01T00:00:00.000Z');

function shop(store = new MemoryStore()) {
  const outbox = defineOutbox({
    store,
    topics: {
      'order.created': { schema: Order, key: (order) => order.id },
      'order.paid': { schema: v.object({ id: v.string() }) },
      'order.sent': { schema: type({ id: 'string' }), key: ({ id }) => id },
    },
  });
  return { store, outbox };
}

/** One that has no destinations. */
const plainStore = Object.fromEntries(
  ['add', 'messages', 'published'].map((name) => [name, () => Promise.resolve([])]),
);

const jsonOf = ({ payload }: Message): unknown => JSON.parse(Buffer.from(payload).toString());

/** Keeps what was published. */
function kept(): Publisher & { messages: Message[] } {
  const messages: Message[] = [];
  return {
    messages,
    publish: (message) => {
      messages.push(message);
      return Promise.resolve();
    },
  };
}

describe('send', () => {
  it('stores the output of the schema, with the topic’s key', async () => {
    const { store, outbox } = shop();
    const unknown = { secret: 'x' };
    await store.transaction(async (tx) => {
      await outbox.send(tx, 'order.created', { id: '1', at, ...unknown }, { metadata: { tenant: 'acme' } });
      await outbox.send(tx, 'order.paid', { id: '2' });
      await outbox.sendAll(tx, 'order.sent', [{ id: '3' }, { id: '4' }]);
    });
    const messages = await store.messages(10);
    expect(messages.map(jsonOf)).toEqual([
      { id: '1', total: 0, at: at.toISOString() },
      { id: '2' },
      { id: '3' },
      { id: '4' },
    ]);
    expect(messages.map(({ topic, key }) => [topic, key])).toEqual([
      ['order.created', '1'],
      ['order.paid', undefined],
      ['order.sent', '3'],
      ['order.sent', '4'],
    ]);
    expect(messages[0]?.metadata).toEqual({ 'content-type': 'application/json', tenant: 'acme' });
  });

  it('writes nothing that the schema refuses, and says where the payload is wrong without quoting it', async () => {
    const { store, outbox } = shop();
    const wrong = [{ id: '1', total: 'secret-value', at }, { total: 1, at }, undefined, null, 'text'];
    for (const payload of wrong) {
      await store.transaction(async (tx) => {
        const sent = outbox.send(tx, 'order.created', payload as never);
        await expect(sent).rejects.toMatchObject({ code: 'INVALID_MESSAGE' });
        await expect(sent).rejects.toThrow(/"order.created"/);
        await expect(sent).rejects.not.toThrow(/secret-value/);
      });
    }
    await store.transaction(async (tx) => {
      await expect(outbox.send(tx, 'order.created', wrong[0] as never)).rejects.toThrow('total: ');
      await expect(outbox.sendAll(tx, 'order.paid', [{ id: '1' }, {} as never])).rejects.toThrow('id');
      await expect(outbox.send(tx, 'order.creatd' as never, {} as never)).rejects.toThrow(
        'there is no topic "order.creatd": the topics are "order.created", "order.paid", "order.sent"',
      );
      await expect(outbox.send(tx, 'toString' as never, {} as never)).rejects.toThrow('there is no topic');
      await expect(outbox.sendAll(tx, 'order.paid', { id: '1' } as never)).rejects.toMatchObject({
        code: 'INVALID_MESSAGE',
        message: expect.stringContaining('sendAll takes an array of payloads, got') as string,
      });
      await expect(outbox.sendAll(tx, 'order.paid', [{ id: '1' }], { id: 'x' } as never)).rejects.toMatchObject({
        code: 'INVALID_OPTION',
        message: 'sendAll takes no id, because each message gets its own: leave id out',
      });
    });
    expect(await store.messages(10)).toEqual([]);
  });

  it('refuses a payload that no handler could read, because the schema does not accept its own output as JSON', async () => {
    const store = new MemoryStore();
    const outbox = defineOutbox({
      store,
      topics: {
        lossy: { schema: z.object({ at: z.date() }) },
        turned: { schema: z.string().transform((text) => text.length) },
        nothing: { schema: z.any() },
        again: { schema: z.number().transform((euros) => euros * 100) },
      },
    });
    await store.transaction(async (tx) => {
      await expect(outbox.send(tx, 'lossy', { at })).rejects.toThrow(
        /when read back from JSON, does not match its schema: at: /,
      );
      await expect(outbox.send(tx, 'turned', 'text')).rejects.toThrow('when read back from JSON');
      await expect(outbox.send(tx, 'again', 42)).rejects.toThrow('changes its own output');
      await expect(outbox.send(tx, 'nothing', undefined)).rejects.toThrow('no JSON form');
      await expect(outbox.send(tx, 'nothing', 1n)).rejects.toThrow('no JSON form');
    });
    expect(await store.messages(10)).toEqual([]);
  });

  describe('a payload that would change on its way through JSON', () => {
    class Money {
      constructor(readonly cents: number) {}
      toJSON() {
        return String(this.cents);
      }
    }
    const schemas = {
      any: z.any(),
      coerced: z.object({ at: z.coerce.date() }),
      money: z.object({
        total: z.union([z.instanceof(Money), z.string().transform((text) => new Money(Number(text)))]),
      }),
      tags: z.object({ tags: z.preprocess((value) => new Set(Array.isArray(value) ? value : []), z.set(z.string())) }),
    };
    const { any, coerced, money, tags } = schemas;
    const sending = async (schema: z.ZodType, payload: unknown) => {
      const store = new MemoryStore();
      const outbox = defineOutbox({ store, topics: { topic: { schema } } });
      await store.transaction((tx) => outbox.send(tx, 'topic', payload));
      const [message] = await store.messages(1);
      return message && (await payloadOf(outbox.topics, message));
    };

    it.each<[unknown, string]>([
      [{ items: [{}, {}, { price: Infinity }] }, 'items[2].price is an infinite number'],
      [{ price: Number.NaN }, 'price is NaN'],
      [new Map([['secret', 1]]), 'it is a Map'],
      [{ set: new Set(['secret']) }, 'set is a Set'],
      [{ list: [1, undefined] }, 'list[1] is undefined'],
      // eslint-disable-next-line no-sparse-arrays
      [{ list: [1, , 2] }, 'list[1] is undefined'],
      [{ at: new Date(0) }, 'at is a Date'],
      [{ total: new Money(42) }, 'total is a Money'],
      [{ pattern: /secret/ }, 'pattern is a RegExp'],
      [{ call: () => 'secret' }, 'call is a function'],
      [{ symbol: Symbol('secret') }, 'symbol is a symbol'],
      [{ bytes: new Uint8Array([7]) }, 'bytes is a Uint8Array'],
      [{ bytes: Buffer.from('secret') }, 'bytes is a Buffer'],
      [{ 'a key': { error: new Error('secret') } }, '["a key"].error is an Error'],
      [{ a: [{ big: 1n }] }, 'a[0].big is a BigInt'],
    ])('is refused with its path: %o', async (payload, why) => {
      const refused = await sending(any, payload).catch((error: unknown) => error);
      expect(refused).toMatchObject({
        code: 'INVALID_MESSAGE',
        message: expect.stringContaining(`: ${why}`) as string,
      });
      expect(String(refused)).not.toContain('secret');
    });

    it('is refused if the schema makes a different value of the same class', async () => {
      await expect(sending(tags, { tags: ['a'] })).rejects.toThrow(': tags is a Set, which JSON does not keep');
    });

    it('is named in the error if the schema refuses the JSON form', async () => {
      await expect(sending(z.object({ at: z.date() }), { at })).rejects.toThrow(
        '(at is a Date, which JSON does not have)',
      );
    });

    it('is named in the error if the schema changes its own output', async () => {
      const schema = z.object({ a: z.object({ n: z.number().transform((n) => n + 1) }) });
      await expect(sending(schema, { a: { n: 1 } })).rejects.toThrow(
        'reads the output back, at a.n: a schema must leave',
      );
      const filled = z
        .record(z.string(), z.any())
        .transform((all) => ({ ...all, [`n${String(Object.keys(all).length)}`]: 1 }));
      await expect(sending(filled, {})).rejects.toThrow('reads the output back, at n1: a schema must leave');
    });

    it.each<[string, z.ZodType, unknown]>([
      ['null, text, numbers, lists', any, { a: null, b: 'ü\ud800', c: [0, 1.5, [], {}], d: false, __proto__: null }],
      ['what a schema makes again: a Date', coerced, { at }],
      ['what a schema makes again: a class', money, { total: new Money(42) }],
      ['what a schema makes again: an empty Set', tags, { tags: [] }],
    ])('does not include %s', async (_, schema, payload) => {
      const back = await sending(schema, payload);
      expect(back).toEqual(schema.parse(payload));
    });

    it('does not include an undefined property, the sign of a zero, or the class of an object that has only properties', async () => {
      class Order {
        readonly id = '1';
      }
      expect(await sending(any, { a: undefined, b: -0, order: new Order() })).toEqual({ b: 0, order: { id: '1' } });
    });
  });

  it('keeps the topic’s key if no key is given, and refuses unknown options', async () => {
    const { store, outbox } = shop();
    await store.transaction(async (tx) => {
      await outbox.send(tx, 'order.sent', { id: '1' }, { key: undefined });
      await outbox.send(tx, 'order.sent', { id: '1' }, { key: 'other' });
      const wrong = { deliverat: at } as never;
      await expect(outbox.send(tx, 'order.sent', { id: '1' }, wrong)).rejects.toThrow('deliverat');
    });
    expect((await store.messages(10)).map(({ key }) => key)).toEqual(['1', 'other']);
  });

  it('needs a transaction', async () => {
    const { outbox } = shop();
    await expect(outbox.send(undefined as never, 'order.paid', { id: '1' })).rejects.toMatchObject({
      code: 'INVALID_TRANSACTION',
    });
  });

  it('waits for an asynchronous schema', async () => {
    const store = new MemoryStore();
    const schema = z.object({ id: z.string().refine((id) => Promise.resolve(id !== 'taken')) });
    const outbox = defineOutbox({ store, topics: { t: { schema } } });
    await store.transaction(async (tx) => {
      await outbox.send(tx, 't', { id: 'free' });
      await expect(outbox.send(tx, 't', { id: 'taken' })).rejects.toThrow('id: ');
    });
    expect(await store.messages(10)).toHaveLength(1);
  });
});

describe('defineOutbox', () => {
  it.each([
    [{ topics: {} }, /store must be/],
    [{ store: new MemoryStore() }, /topics must be/],
    [{ store: new MemoryStore(), topics: { t: {} } }, /topics\["t"\]\.schema must be a Standard Schema/],
    [{ store: new MemoryStore(), topics: { t: null } }, /topics\["t"\] must be an object/],
    [
      { store: new MemoryStore(), topics: { t: { schema: Order, key: 'id' } } },
      /topics\["t"\]\.key must be a function/,
    ],
    [{ store: new MemoryStore(), topics: { t: { schema: Order, version: 0 } } }, /topics\["t"\]\.version/],
    [
      { store: new MemoryStore(), topics: { t: { schema: Order, version: 1.5 } } },
      /topics\["t"\]\.version must be a whole number from 1 to 9007199254740991, got 1\.5/,
    ],
    [
      { store: new MemoryStore(), topics: { t: { schema: Order, destination: 7 } } },
      /topics\["t"\]\.destination must be the name of a destination, got 7/,
    ],
    [
      { store: new MemoryStore(), topics: { t: { schema: Order, destination: '' } } },
      /topics\["t"\]\.destination must be the name of a destination, got ""/,
    ],
    [{ store: plainStore, topics: { t: { schema: Order, destination: 'kafka' } } }, /this store has no destinations/],
    [{ store: new MemoryStore(), topics: { t: { schema: Order, keys: 1 } } }, /keys/],
    [{ store: new MemoryStore(), topics: {}, topic: 1 }, /topic/],
  ])('refuses %o', (options, message) => {
    expect(() => defineOutbox(options as never)).toThrow(message);
    expect(() => defineOutbox(options as never)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }));
  });
});

describe('a relay of an outbox', () => {
  it('publishes until its scope ends, and finishes what is in flight', async () => {
    const { store, outbox } = shop();
    const publisher = kept();
    await store.transaction((tx) => outbox.send(tx, 'order.paid', { id: '1' }));
    const slow: Publisher = {
      publish: async (message) => {
        await new Promise((resolve) => setImmediate(resolve));
        return publisher.publish(message);
      },
    };
    let ended: Promise<void>;
    {
      await using relay = await outbox.relay({ publisher: slow });
      ended = relay.ended;
      expect(relay.circuit.state).toBe('closed');
    }
    await ended;
    expect(publisher.messages.map(jsonOf)).toEqual([{ id: '1' }]);
    expect(await store.messages(10)).toEqual([]);
  });

  it('ends once when its signal aborts', async () => {
    const { outbox } = shop();
    const stop = new AbortController();
    const relay = await outbox.relay({ publisher: kept(), signal: stop.signal });
    stop.abort();
    await relay.ended;
    await relay.stop();
    const never = await outbox.relay({ publisher: kept(), signal: AbortSignal.abort() });
    await never.ended;
  });

  const WEEK = 7 * 86_400_000;
  it.each<[string, number | undefined, { cleanUp?: number | false }, number | undefined]>([
    ['after seven days', undefined, {}, WEEK],
    ['after seven days where the store allows more', 2 * WEEK, {}, WEEK],
    ['after the retention of the store where that is shorter', 86_400_000, {}, 86_400_000],
    ['after the time that it is told', 86_400_000, { cleanUp: 5_000 }, 5_000],
    ['never where it is told so', 86_400_000, { cleanUp: false }, undefined],
  ])('cleans %s', async (_, retention, options, expiration) => {
    for (const store of [new MemoryStore(), new PlainStore()]) {
      if (retention !== undefined) Object.assign(store, { retention: () => Promise.resolve(retention) });
      const cleaned = vi.spyOn(store, 'deletePublishedByExpiration');
      const { outbox } = shop(store);
      await using relay = await outbox.relay({ publisher: kept(), ...options });
      await store.transaction((tx) => outbox.send(tx, 'order.paid', { id: '1' }));
      await expect.poll(() => store.messages(10)).toEqual([]);
      await relay.stop();
      expect(cleaned.mock.calls.map(([after]) => after)).toEqual(expiration === undefined ? [] : [expiration]);
    }
  });

  it('goes on if the store’s retention changes between reading and cleaning', async () => {
    const store = Object.assign(new MemoryStore(), { retention: () => Promise.resolve(100) });
    const logged: Error[] = [];
    const errorLogger = { error: (error: Error) => void logged.push(error) };
    const refused = new MessengerError('INVALID_OPTION', 'expiration must be 50 ms at most');
    const cleaned = vi.spyOn(store, 'deletePublishedByExpiration').mockRejectedValueOnce(refused);
    await using relay = await shop(store).outbox.relay({ publisher: kept(), errorLogger, interval: 1 });
    await expect.poll(() => logged).toEqual([refused]);
    await relay.stop();
    expect(cleaned).toHaveBeenCalledOnce();
  });

  it('cleans again after a tenth of a short retention', async () => {
    const store = Object.assign(new MemoryStore(), { retention: () => Promise.resolve(100) });
    const cleaned = vi.spyOn(store, 'deletePublishedByExpiration');
    await using relay = await shop(store).outbox.relay({ publisher: kept(), interval: 1 });
    await expect.poll(() => cleaned.mock.calls.length).toBeGreaterThan(3);
    await relay.stop();
  });

  it('does not start on a store that does not answer, and reports a store that is lost', async () => {
    const { store, outbox } = shop(new PlainStore());
    const refused = () => Promise.reject(new Error('refused'));
    const messages = store.messages.bind(store);
    store.messages = refused;
    const logged: Error[] = [];
    const errorLogger = { error: (error: Error) => void logged.push(error) };
    await expect(outbox.relay({ publisher: kept(), errorLogger })).rejects.toMatchObject({ code: 'FATAL' });
    store.messages = messages;
    const relay = await outbox.relay({ publisher: kept(), errorLogger, storeOutageLimit: 0, interval: 1 });
    store.messages = refused;
    await expect(relay.ended).rejects.toMatchObject({ code: 'FATAL' });
    expect(logged).toEqual([expect.objectContaining({ code: 'FATAL' })]);
    store.messages = messages;
    await expect(relay.stop()).rejects.toMatchObject({ code: 'FATAL' });
    await outbox.relay({ publisher: kept() }).then((each) => each.stop());
  }, 10_000);

  it('uses the retry options of each topic', async () => {
    const store = new MemoryStore();
    const retry = { maxAttempts: 0 };
    expect(() => defineOutbox({ store, topics: { t: { schema: Order, retry } } })).toThrow(
      'topics["t"].retry.maxAttempts must be a whole number',
    );
    const misspelt = { schema: Order, keys: () => 'k' };
    expect(() => defineOutbox({ store, topics: { t: misspelt } })).toThrow('unknown option "keys" of topics["t"]');
    // A relay may give all topics a shorter first pause than the default, and its longest is then this.
    const outbox = defineOutbox({ store, topics: { t: { schema: Order, retry: { maxDelay: 100 } } } });
    const relay = await outbox.relay({ publisher: kept(), retry: { minDelay: 50 } });
    await relay.stop();
  });
});

describe('drain', () => {
  it('goes on past failures, reports them at the end, and cleans', async () => {
    const { store, outbox } = shop();
    const publisher = kept();
    const ids = Array.from({ length: 30 }, (_, i) => String(i));
    await store.transaction((tx) =>
      outbox.sendAll(
        tx,
        'order.sent',
        ids.map((id) => ({ id })),
      ),
    );
    const picky: Publisher = {
      publish: (message) => (message.key === '3' ? Promise.reject(new Error('no')) : publisher.publish(message)),
    };
    const drained = outbox.drain({
      publisher: picky,
      publishBatchSize: 10,
      cleanUp: 0,
      errorLogger: { error: () => undefined },
    });
    await expect(drained).rejects.toThrow('29 messages were published, but others failed: ');
    expect(publisher.messages.map(({ key }) => key)).toEqual(ids.filter((id) => id !== '3'));
    expect(store.all().map(({ key }) => key)).toEqual(['3']);
    // As soon as it is due.
    await expect.poll(() => outbox.drain({ publisher, cleanUp: 0 })).toBe(1);
    expect(store.all()).toEqual([]);
  });

  it('ends at once if the broker as a whole fails', async () => {
    const { store, outbox } = shop();
    await store.transaction((tx) => outbox.sendAll(tx, 'order.paid', [{ id: '1' }, { id: '2' }, { id: '3' }]));
    let calls = 0;
    const publish = () => {
      calls += 1;
      return Promise.reject(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }));
    };
    const drained = outbox.drain({ publisher: { publish }, publishBatchSize: 1 });
    await expect(drained).rejects.toMatchObject({ code: 'PUBLISH_FAILED', kind: 'connection' });
    expect(calls).toBe(1);
  });

  it('names missing and superfluous options', async () => {
    const { outbox } = shop();
    for (const options of [undefined, null, {}, { publisher: kept(), topics: {} }]) {
      await expect(outbox.drain(options as never)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
      await expect(outbox.relay(options as never)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    }
  });

  it('publishes every message, and gives the lease back', async () => {
    const { store, outbox } = shop();
    const publisher = kept();
    const payloads = Array.from({ length: 250 }, (_, i) => ({ id: String(i) }));
    await store.transaction((tx) => outbox.sendAll(tx, 'order.paid', payloads));
    expect(await outbox.drain({ publisher })).toBe(250);
    expect(publisher.messages.map(jsonOf)).toEqual(payloads);
    expect(await outbox.drain({ publisher })).toBe(0);
  });

  it('starts nothing new after its budget is used up or its signal aborts', async () => {
    const { store, outbox } = shop();
    const publisher = kept();
    const ids = Array.from({ length: 5 }, (_, i) => ({ id: String(i) }));
    await store.transaction((tx) => outbox.sendAll(tx, 'order.paid', ids));
    const slow = (then: () => Promise<void> | void): Publisher => ({
      async publish(message) {
        await publisher.publish(message);
        await then();
      },
    });
    /** A broker that takes as long as a drain that began before it was called has. */
    const pass = (budget: number) => new Promise<void>((resolve) => setTimeout(resolve, budget + 1));
    // Whether in a page or between two of them.
    const [inPage, between] = [{ concurrency: 1 }, { publishBatchSize: 1 }];
    for (const options of [inPage, between]) {
      expect(await outbox.drain({ ...options, publisher: slow(() => pass(200)), budget: 200 })).toBe(1);
      const stop = new AbortController();
      const stopping = slow(() => {
        stop.abort();
      });
      expect(await outbox.drain({ ...options, publisher: stopping, signal: stop.signal })).toBe(1);
      expect(await outbox.drain({ publisher, signal: AbortSignal.abort() })).toBe(0);
    }
    expect(await outbox.drain({ publisher })).toBe(1);
    await expect(outbox.drain({ publisher, budget: 0 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });
});

/** Hands messages over as a broker would, and tells what became of each. */
function broker(messages: readonly Message[]): Subscriber & { outcomes: (Error | undefined)[] } {
  const outcomes: (Error | undefined)[] = [];
  return {
    outcomes,
    async subscribe({ handler }: Subscription, { signal }) {
      for (const message of messages) {
        outcomes.push(
          await Promise.resolve(handler(message, { signal })).then(
            () => undefined,
            (error: unknown) => error as Error,
          ),
        );
      }
    },
  };
}

describe('subscribe', () => {
  const { signal } = new AbortController();
  const topics = defineTopics({
    'order.created': { schema: Order },
    'order.paid': {
      schema: z.object({ id: z.string(), currency: z.string() }),
      version: 3,
      upcast: (old, version) =>
        version === 1 ? { id: String(old), currency: 'EUR' } : { ...(old as object), currency: 'USD' },
    },
    'order.sent': { schema: z.string(), version: 2 },
  });
  const json = (value: unknown, topic: string, version?: number) =>
    newMessage(JSON.stringify(value), { topic, ...(version && { metadata: { 'schema-version': String(version) } }) });

  it('hands each message to its topic’s handler, parsed and upcast to the current version', async () => {
    const got: unknown[] = [];
    const messages = [
      json({ id: '1', total: 2, at }, 'order.created'),
      json(7, 'order.paid'),
      json({ id: '8' }, 'order.paid', 2),
      json({ id: '9', currency: 'CHF' }, 'order.paid', 3),
    ];
    const subscriber = broker(messages);
    await subscribe(subscriber, {
      name: 'billing',
      topics,
      signal,
      handlers: {
        'order.created': (order, context) => got.push([order, context.message.id, context.signal === signal]),
        'order.paid': (paid) => got.push(paid),
      },
    });
    expect(subscriber.outcomes).toEqual([undefined, undefined, undefined, undefined]);
    expect(got).toEqual([
      [{ id: '1', total: 2, at }, messages[0]?.id, true],
      { id: '7', currency: 'EUR' },
      { id: '8', currency: 'USD' },
      { id: '9', currency: 'CHF' },
    ]);
  });

  it('refuses a message that it cannot read or has no handler for, so that the broker keeps the message', async () => {
    const messages = [
      json({ id: 1 }, 'order.created'),
      newMessage('no json', { topic: 'order.created' }),
      newMessage(new Uint8Array([0xff]), { topic: 'order.created' }),
      json({ id: '9', currency: 'CHF' }, 'order.paid', 4),
      json('x', 'order.sent'),
      json('x', 'order.sent', 2),
      json('x', 'unknown'),
      newMessage('{}'),
    ];
    const subscriber = broker(messages);
    const handlers = { 'order.created': () => undefined, 'order.paid': () => undefined, 'order.sent': undefined };
    await subscribe(subscriber, { name: 'billing', topics, signal, handlers: handlers as never });
    expect(subscriber.outcomes.map((error) => error?.message)).toEqual([
      expect.stringMatching(/^message .* of "order.created" does not match its schema: id: /),
      expect.stringMatching(/is not valid JSON$/),
      expect.stringMatching(/is not valid JSON$/),
      expect.stringMatching(/has version 4, but this consumer has version 3: update the consumer$/),
      expect.stringMatching(/no handler/),
      expect.stringMatching(/no handler/),
      expect.stringMatching(/^billing has no handler for topic "unknown"/),
      expect.stringMatching(/no handler/),
    ]);
    const old = broker([json('x', 'order.sent')]);
    await subscribe(old, { name: 'b', topics, signal, handlers: { 'order.sent': () => undefined } });
    expect(old.outcomes[0]?.message).toMatch(
      /has version 1, but this consumer has version 2: give the topic an upcast$/,
    );
  });

  it('acknowledges other topics with unhandledTopics: ignore', async () => {
    const subscriber = broker([json('x', 'unknown'), json('x', 'order.sent')]);
    await subscribe(subscriber, { name: 'billing', topics, signal, handlers: {}, unhandledTopics: 'ignore' });
    expect(subscriber.outcomes).toEqual([undefined, undefined]);
  });

  it('rejects if the handler rejects', async () => {
    const subscriber = broker([json({ id: '1', at }, 'order.created')]);
    const failure = new Error('no');
    const handlers = { 'order.created': () => Promise.reject(failure) };
    await subscribe(subscriber, { name: 'billing', topics, signal, handlers });
    expect(subscriber.outcomes).toEqual([failure]);
  });

  it('runs handlers in the inbox’s transaction, once', async () => {
    const done = new Set<string>();
    const inbox: Inbox<string> = {
      async once(message, work) {
        if (done.has(message.id)) return false;
        await work(`tx of ${message.id}`);
        done.add(message.id);
        return true;
      },
    };
    const message = json({ id: '1', at }, 'order.created');
    const got: string[] = [];
    const handlers = { 'order.created': (_: unknown, { tx }: { tx: string }) => got.push(tx) };
    await subscribe(broker([message, message]), { name: 'billing', topics, signal, inbox, handlers });
    expect(got).toEqual([`tx of ${message.id}`]);
  });

  it('refuses handlers for unknown topics', async () => {
    const handlers = { 'order.creatd': () => undefined };
    await expect(subscribe(broker([]), { name: 'b', topics, signal, handlers: handlers as never })).rejects.toThrow(
      'there is no topic "order.creatd"',
    );
  });
});

import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineOutbox, newMessage, subscribe } from '../../src/index.js';
import { MemoryStore } from '../../src/stores/memory/index.js';
import { memoryBroker, outboxTesting } from '../../src/testing/index.js';

function shop() {
  const store = new MemoryStore();
  const outbox = defineOutbox({
    store,
    topics: {
      'order.created': {
        schema: z.object({
          id: z.string(),
          total: z.number(),
          at: z.coerce.date(),
          tags: z.array(z.string()).optional(),
        }),
        key: ({ id }) => id,
      },
      'order.paid': { schema: z.string() },
    },
  });
  return { store, outbox, ...outboxTesting(outbox) };
}
const matching = (part: object) => expect.objectContaining(part) as { asymmetricMatch(other: unknown): boolean };
const at = new Date('2026-01-01T00:00:00.000Z');

function thrownBy(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    return error;
  }
}

describe('outboxTesting', () => {
  it('returns what a transaction has stored, as a handler would get it', async () => {
    const { store, outbox, stored, expectStored } = shop();
    await store.transaction(async (tx) => {
      expect(await stored(tx)).toEqual([]);
      await outbox.send(tx, 'order.created', { id: '1', total: 42, at, tags: ['a', 'b'] });
      await outbox.send(tx, 'order.paid', '1');
      expect((await stored(tx)).map(({ topic, key, payload }) => [topic, key, payload])).toEqual([
        ['order.created', '1', { id: '1', total: 42, at, tags: ['a', 'b'] }],
        ['order.paid', undefined, '1'],
      ]);
      const { payload, message } = await expectStored(tx, 'order.created', { id: '1' });
      expect(payload.at.getTime()).toBe(at.getTime());
      expect(message.topic).toBe('order.created');
      await expectStored(tx, 'order.created');
      await expectStored(tx, 'order.created', { at, tags: ['a', 'b'] });
      await expectStored(tx, 'order.created', { tags: expect.arrayContaining(['b']) as unknown });
      await expectStored(tx, 'order.created', matching({ total: 42 }));
      await expectStored(tx, 'order.created', ({ total }) => total > 41);
    });
  });

  it('fails and shows what was stored if nothing matches', async () => {
    const { store, outbox, expectStored } = shop();
    await store.transaction(async (tx) => {
      await expect(expectStored(tx, 'order.paid')).rejects.toThrow('nothing');
      await outbox.send(tx, 'order.created', { id: '1', total: 42, at, tags: ['a', 'b'] });
      const wrong = [{ id: '2' }, { at: new Date(0) }, { tags: ['a'] }, { tags: { 0: 'a', 1: 'b' } }, { total: '42' }];
      for (const matcher of [...wrong, matching({ total: 1 }), () => false]) {
        await expect(expectStored(tx, 'order.created', matcher)).rejects.toThrow(
          /no order.created .*\n {2}order.created \{"id":"1"/,
        );
      }
      await expect(expectStored(tx, 'order.paid')).rejects.toThrow('no order.paid');
      const unlike = expectStored(tx, 'order.created', { id: expect.stringMatching(/^9/) as unknown, total: 42 });
      await expect(unlike).rejects.toThrow('no order.created like {"id":"StringMatching","total":42} was stored');
      const throwing = ({ total }: { total: number }) => {
        expect(total).toBe(7);
        return true;
      };
      const rejected = expectStored(tx, 'order.created', throwing);
      await expect(rejected).rejects.toThrow('no order.created');
      await expect(rejected).rejects.toHaveProperty('cause.name', 'AssertionError');
      await outbox.send(tx, 'order.created', { id: '2', total: 7, at });
      expect((await expectStored(tx, 'order.created', throwing)).payload.id).toBe('2');
      await expect(expectStored(tx, 'order.created', () => undefined as never)).rejects.toThrow('no order.created');
      await store.add(tx, 'of no topic');
      await expectStored(tx, 'order.created');
    });
  });

  it('drains committed messages in order, and nothing else', async () => {
    const { store, outbox, drained } = shop();
    await store.transaction((tx) => outbox.sendAll(tx, 'order.paid', ['1', '2', '3']));
    await store
      .transaction(async (tx) => {
        await outbox.send(tx, 'order.paid', 'never');
        throw new Error('rolled back');
      })
      .catch(() => undefined);
    expect((await drained()).map(({ payload }) => payload)).toEqual(['1', '2', '3']);
    expect(await drained()).toEqual([]);
  });
});

describe('memoryBroker', () => {
  it('refuses unknown options, and values that are not numbers', () => {
    for (const [options, says] of [
      [{ maxDelivery: 1 }, /maxDelivery/],
      [{ maxDeliveries: 0 }, /maxDeliveries.*0/],
      [{ maxDeliveries: 1.5 }, /maxDeliveries.*1\.5/],
      [{ duplicates: -1 }, /duplicates.*-1/],
    ] as const) {
      const error = thrownBy(() => memoryBroker(options as never));
      expect(error).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(says) as string });
    }
  });

  it('delivers failed messages again, gives up those that never succeed, and continues in order', async () => {
    const errors: Error[] = [];
    const broker = memoryBroker({ maxDeliveries: 2, errorLogger: { error: (error) => void errors.push(error) } });
    const stop = new AbortController();
    const got: string[] = [];
    const subscribed = broker.subscribe(
      {
        name: 'test',
        handler: ({ id }) => {
          got.push(id);
          if (id === 'never' || (id === 'once' && got.filter((each) => each === id).length === 1)) throw new Error(id);
        },
      },
      { signal: stop.signal },
    );
    for (const id of ['a', 'once', 'never', 'b']) await broker.publish(newMessage('x', { id }));
    await broker.idle();
    expect(got).toEqual(['a', 'once', 'once', 'never', 'never', 'b']);
    expect(broker.dead.map(({ message, error }) => [message.id, String(error)])).toEqual([['never', 'Error: never']]);
    expect(errors.map(({ message, cause }) => [message, String(cause)])).toEqual([
      ['test: message never (of no topic) is dead after 2 failures', 'Error: never'],
    ]);
    expect(broker.published.map(({ id }) => id)).toEqual(['a', 'once', 'never', 'b']);
    stop.abort();
    await subscribed;
    await broker.publish(newMessage('x', { id: 'late' }));
    await broker.idle();
    expect(got).not.toContain('late');
  });

  it('delivers every message several times if configured to, to every subscription', async () => {
    const broker = memoryBroker({ duplicates: 1 });
    const stop = new AbortController();
    const got: string[] = [];
    const subscriptions = ['x', 'y'].map((name) =>
      broker.subscribe({ name, handler: ({ id }) => void got.push(`${name}${id}`) }, { signal: stop.signal }),
    );
    await broker.publish(newMessage('x', { id: '1' }));
    await broker.idle();
    expect(got.sort()).toEqual(['x1', 'x1', 'y1', 'y1']);
    stop.abort();
    await Promise.all(subscriptions);
  });

  it('is what an outbox publishes to, and its handlers subscribe to', async () => {
    const { store, outbox } = shop();
    const broker = memoryBroker();
    const stop = new AbortController();
    const paid: string[] = [];
    const handlers = { 'order.paid': (id: string) => paid.push(id) };
    const { topics } = outbox;
    const subscribed = subscribe(broker, { name: 'billing', topics, handlers, signal: stop.signal });
    await store.transaction((tx) => outbox.send(tx, 'order.paid', '1'));
    await outbox.drain({ publisher: broker });
    await broker.idle();
    expect(paid).toEqual(['1']);
    stop.abort();
    await subscribed;
  });
});

import fastify, { type FastifyInstance } from 'fastify';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { outboxPlugin, type RelayHealth } from '../../src/frameworks/fastify.js';
import { deferred, held, isOpen, shop } from './support.js';

declare module 'fastify' {
  interface FastifyInstance {
    outbox: ReturnType<typeof shop>['outbox'];
    outboxHealth: () => RelayHealth;
  }
}

describe('outboxPlugin', () => {
  it('gives the whole server a typed outbox, and relays from `ready` to `close`', async () => {
    const { store, outbox, waiting } = shop();
    const app = fastify();
    const { publisher, published, inFlight, release } = held();
    app.register(outboxPlugin, { outbox, relay: { publisher, interval: 1 } });
    app.register(async (child) => {
      child.post('/orders', async () => {
        await store.transaction((tx) => child.outbox.send(tx, 'order.created', { id: '1' }));
        return child.outboxHealth();
      });
    });
    await app.listen({ port: 0 });
    expect(app.outbox).toBe(outbox);
    expectTypeOf(app.outbox).toEqualTypeOf(outbox);

    const response = await app.inject({ method: 'POST', url: '/orders' });
    expect(response.json()).toMatchObject({ ok: true, status: 'running', circuit: { state: 'closed' } });

    await inFlight;
    const closed = app.close();
    expect(await isOpen(closed)).toBe(true);
    release();
    await closed;
    expect(published).toHaveLength(1);
    expect(await waiting()).toBe(0);
    expect(app.outboxHealth()).toMatchObject({ ok: false, status: 'stopped' });
  });

  it('relays until the last request has been answered', async () => {
    const { outbox, send } = shop();
    const app = fastify({ keepAliveTimeout: 1 });
    const { publisher, published, release } = held();
    release();
    app.register(outboxPlugin, { outbox, relay: { publisher, interval: 1 } });
    const [arrived, answer] = [deferred(), deferred()];
    app.get('/', async () => {
      arrived.resolve();
      await answer.promise;
      return app.outboxHealth();
    });
    const request = fetch(await app.listen({ port: 0 }));
    await arrived.promise;
    const closed = app.close();
    expect(await isOpen(closed)).toBe(true);
    await send('1');
    await expect.poll(() => published.length).toBe(1);
    answer.resolve();
    expect(await (await request).json()).toMatchObject({ status: 'running' });
    await closed;
  });

  it.each([
    ['by a hook', (app: FastifyInstance, close: () => Promise<void>) => app.addHook('onClose', close)],
    [
      'by a plugin',
      (app: FastifyInstance, close: () => Promise<void>) =>
        app.register(async (child) => {
          child.addHook('onClose', close);
        }),
    ],
  ])('is closed before what was registered before it, such as the database: %s', async (_, register) => {
    const { outbox, send, waiting } = shop();
    const app = fastify();
    const { publisher, inFlight, release } = held();
    const closed: RelayHealth['status'][] = [];
    const close = async () => {
      closed.push(app.outboxHealth().status);
      // What was in flight has been settled.
      expect(await waiting()).toBe(0);
    };
    register(app, close);
    app.register(outboxPlugin, { outbox, relay: { publisher, interval: 1 } });
    await app.ready();
    await send('1');
    await inFlight;
    const closing = app.close();
    expect(await isOpen(closing)).toBe(true);
    expect(closed).toEqual([]);
    release();
    await closing;
    expect(closed).toEqual(['stopped']);
  });

  it.each([
    ['by a hook', (app: FastifyInstance, close: () => Promise<void>) => app.addHook('onClose', close)],
    [
      'by a plugin',
      (app: FastifyInstance, close: () => Promise<void>) =>
        app.register(async (child) => {
          child.addHook('onClose', close);
        }),
    ],
  ])('is closed before what was registered after it, and after the last request: %s', async (_, register) => {
    const { outbox, send, waiting } = shop();
    const app = fastify({ keepAliveTimeout: 1 });
    const { publisher, inFlight, release } = held();
    const closed: unknown[] = [];
    app.register(outboxPlugin, { outbox, relay: { publisher, interval: 1 } });
    register(app, async () => {
      closed.push([app.outboxHealth().status, await waiting()]);
    });
    const [arrived, answer] = [deferred(), deferred()];
    app.get('/', async () => {
      arrived.resolve();
      await answer.promise;
      await send('1');
      return app.outboxHealth();
    });
    const request = fetch(await app.listen({ port: 0 }));
    await arrived.promise;
    const closing = app.close();
    expect(await isOpen(closing)).toBe(true);
    answer.resolve();
    expect(await (await request).json()).toMatchObject({ status: 'running' });
    await inFlight;
    expect(await isOpen(closing)).toBe(true);
    expect(closed).toEqual([]);
    release();
    await closing;
    expect(closed).toEqual([['stopped', 0]]);
  });

  it('does not become ready when the relay cannot start', async () => {
    const { outbox, lose, errorLogger } = shop();
    lose();
    const app = fastify();
    app.register(outboxPlugin, { outbox, relay: { publisher: held().publisher, errorLogger } });
    await expect(app.listen({ port: 0 })).rejects.toMatchObject({ code: 'FATAL' });
    expect(app.server.listening).toBe(false);
    expect(app.outboxHealth()).toMatchObject({ ok: false, status: 'failed', error: { code: 'FATAL' } });
    await app.close();
  });

  it('reports a relay that has ended, and still closes', async () => {
    const { outbox, lose, errors, errorLogger } = shop();
    const app = fastify();
    const relay = { publisher: held().publisher, errorLogger, interval: 1, storeOutageLimit: 0 };
    app.register(outboxPlugin, { outbox, relay });
    app.get('/health', (_, reply) => reply.code(app.outboxHealth().ok ? 200 : 503).send(app.outboxHealth()));
    await app.ready();
    expect((await app.inject('/health')).statusCode).toBe(200);
    lose();
    await expect.poll(() => errors).toEqual([expect.objectContaining({ code: 'FATAL' })]);
    const response = await app.inject('/health');
    expect(response.statusCode).toBe(503);
    expect(response.json()).toMatchObject({ ok: false, status: 'failed', error: { code: 'FATAL' } });
    expect(response.body).not.toContain('refused');
    await app.close();
  });

  it('only stores messages without a relay', async () => {
    const { outbox, send, waiting } = shop();
    const app = fastify();
    app.register(outboxPlugin, { outbox });
    await app.ready();
    await send('1');
    expect(app.outboxHealth()).toEqual({ ok: true, status: 'none' });
    await app.close();
    expect(await waiting()).toBe(1);
  });

  it('can be closed before it is ready', async () => {
    const { outbox } = shop();
    const app = fastify();
    app.register(outboxPlugin, { outbox, relay: { publisher: held().publisher } });
    await app.close();
    expect(app.outboxHealth().ok).toBe(false);
  });

  it.each([
    [/outbox must be an outbox/, { outbox: {} }],
    [/unknown option "relays"/, { outbox: shop().outbox, relays: {} }],
  ])('refuses with %s', async (message, options) => {
    const app = fastify();
    app.register(outboxPlugin, options as never);
    await expect(app.ready()).rejects.toThrow(message);
    await app.close();
  });
});

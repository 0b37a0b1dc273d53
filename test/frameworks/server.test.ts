import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { connect, createServer as createHttp2Server, type Http2SecureServer, type Http2Server } from 'node:http2';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { serve } from '@hono/node-server';
import express from 'express';
import { Hono } from 'hono';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { withRelay, type NodeServer } from '../../src/frameworks/server.js';
import { deferred, held, isOpen, shop } from './support.js';

const urlOf = (server: NetServer) => `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;

describe('withRelay', () => {
  it('starts with an Express server, and on stop answers open requests and finishes what is in flight', async () => {
    const { outbox, send, waiting } = shop();
    const { publisher, published, inFlight, release } = held();
    const [arrived, answer] = [deferred(), deferred()];
    const app = express();
    app.get('/', async (_, response) => {
      arrived.resolve();
      await answer.promise;
      await send('1');
      response.json(service.health());
    });
    const listen = () => app.listen(0);
    const service = await withRelay({ outbox, relay: { publisher, interval: 1 }, listen });
    expectTypeOf(service.server).toEqualTypeOf<Server>();
    expect(service.health()).toMatchObject({ ok: true, status: 'running' });

    // Stopping does not wait until a client lets go of its connection.
    service.server.keepAliveTimeout = 600_000;
    const request = fetch(urlOf(service.server));
    await arrived.promise;
    const stopped = service.stop();
    expect(service.server.listening).toBe(false);
    expect(await isOpen(stopped)).toBe(true);
    expect(service.health().status).toBe('running');

    answer.resolve();
    expect(await (await request).json()).toMatchObject({ status: 'running' });
    await inFlight;
    expect(await isOpen(stopped)).toBe(true);
    expect(await isOpen(service.ended)).toBe(true);
    release();
    await stopped;
    await service.ended;
    expect(published).toHaveLength(1);
    expect(await waiting()).toBe(0);
    expect(service.health()).toMatchObject({ ok: false, status: 'stopped' });
    await service.stop();
  });

  type Answer = (request: unknown, response: { end(text: string): unknown }) => void;
  it.each([
    [
      'node:http, as Koa does',
      (answer: Answer) => createServer(answer),
      async (url: string) => (await fetch(url)).text(),
    ],
    [
      'node:http2',
      (answer: Answer) => createHttp2Server(answer),
      async (url: string) => {
        const session = connect(url);
        // A server may wait for its sessions, which the application must close.
        return text(session.request()).finally(() => {
          session.close();
        });
      },
    ],
  ])('publishes what the last request has stored, beside a server of %s', async (_, create, get) => {
    expectTypeOf<Server | Http2Server | Http2SecureServer>().toExtend<NodeServer>();
    const { outbox, send, waiting } = shop();
    const { publisher, published, release } = held();
    release();
    const [arrived, answer] = [deferred(), deferred()];
    const server = create((_request, response) => {
      arrived.resolve();
      void answer.promise.then(() => send('1')).then(() => response.end(service.health().status));
    });
    const service = await withRelay({ outbox, relay: { publisher, interval: 1 }, listen: () => server.listen(0) });
    const got = get(urlOf(server));
    await arrived.promise;
    const stopped = service.stop();
    expect([server.listening, await isOpen(stopped)]).toEqual([false, true]);
    answer.resolve();
    expect(await got).toBe('running');
    await stopped;
    await service.ended;
    expect([published.length, await waiting(), service.health().status]).toEqual([1, 0, 'stopped']);
  });

  it('has a health that says whether messages get through, even as JSON', async () => {
    const { outbox, send, lose, errors, errorLogger } = shop();
    const { publisher, inFlight, release } = held();
    // Like the errors of HTTP clients: circular, and with credentials.
    const failure = Object.assign(new Error('no amqp://me:hush@broker'), { request: { password: 'hush' }, self: {} });
    failure.self = failure;
    const refusing = { publish: () => Promise.reject(failure) };
    const relay = { publisher, interval: 1, errorLogger };
    const service = await withRelay({ outbox, relay, listen: () => createServer().listen(0) });
    expect(service.health()).toMatchObject({ ok: true, publishing: true, datastore: { state: 'working' } });
    await send('1');
    await inFlight;
    expect(service.health().circuit?.waitingSince).toBeInstanceOf(Date);
    release();
    lose();
    await expect.poll(() => service.health()).toMatchObject({ ok: true, publishing: false });
    expect(JSON.parse(JSON.stringify(service.health()))).toMatchObject({
      status: 'running',
      publishing: false,
      datastore: { state: 'failing', error: {} },
    });
    expect(errors).toMatchObject([{ code: 'DATASTORE_FAILED' }]);
    await service.stop();
    expect(service.health()).toMatchObject({ ok: false, publishing: false });

    const other = shop();
    const failing = await withRelay({
      outbox: other.outbox,
      relay: { publisher: refusing, interval: 1, classify: () => 'connection', errorLogger: other.errorLogger },
      listen: () => createServer().listen(0),
    });
    await other.send('1');
    await expect.poll(() => failing.health().publishing).toBe(false);
    const text = JSON.stringify({ health: failing.health() });
    expect(JSON.parse(text)).toMatchObject({
      health: { ok: true, publishing: false, circuit: { state: 'open', error: {} } },
    });
    expect(text).not.toContain('hush');
    expect(failing.health().circuit?.error).toBe(failure);
    await failing.stop();
  });

  it('starts and stops with Hono on Node.js, as with any other server', async () => {
    const { outbox, send, waiting } = shop();
    const { publisher, published, release } = held();
    release();
    const app = new Hono().post('/orders', async (context) => {
      await send('1');
      return context.text('ordered', 201);
    });
    const listen = () => serve({ fetch: app.fetch, port: 0 });
    const service = await withRelay({ outbox, relay: { publisher, interval: 1 }, listen });
    const response = await fetch(`${urlOf(service.server)}/orders`, { method: 'POST' });
    expect([response.status, await response.text()]).toEqual([201, 'ordered']);
    await service.stop();
    await service.ended;
    expect([published.length, await waiting(), service.server.listening]).toEqual([1, 0, false]);
  });

  it('does not listen if the relay cannot start', async () => {
    const { outbox, lose, errorLogger } = shop();
    lose();
    let listened = false;
    const listen = () => {
      listened = true;
      return createServer().listen(0);
    };
    const service = withRelay({ outbox, relay: { publisher: held().publisher, errorLogger }, listen });
    await expect(service).rejects.toMatchObject({ code: 'FATAL' });
    expect(listened).toBe(false);
  });

  it('leaves no relay behind if the server cannot listen', async () => {
    const { outbox } = shop();
    const { publisher } = held();
    const first = createServer().listen(0);
    await new Promise((resolve) => first.once('listening', resolve));
    const { port } = first.address() as AddressInfo;
    const relays: Promise<void>[] = [];
    const watched = {
      ...outbox,
      relay: async (options: Parameters<typeof outbox.relay>[0]) => {
        const relay = await outbox.relay(options);
        relays.push(relay.ended);
        return relay;
      },
    };
    const inUse = withRelay({ outbox: watched, relay: { publisher }, listen: () => createServer().listen(port) });
    await expect(inUse).rejects.toMatchObject({ code: 'EADDRINUSE' });
    const failure = new Error('no');
    const thrown = withRelay({ outbox: watched, relay: { publisher }, listen: () => Promise.reject(failure) });
    await expect(thrown).rejects.toBe(failure);
    expect(relays).toHaveLength(2);
    await Promise.all(relays);
    first.close();
  });

  it('ends with its scope, and when the server is closed by somebody else', async () => {
    const { outbox } = shop();
    const options = { outbox, relay: { publisher: held().publisher }, listen: () => createServer().listen(0) };
    let health;
    {
      await using service = await withRelay(options);
      health = service.health;
    }
    expect(health().status).toBe('stopped');
    const { server, stop, health: later } = await withRelay(options);
    server.close();
    await stop();
    expect(later().status).toBe('stopped');
  });

  it.each([
    ['already', async (server: Server) => once(server.listen(0), 'listening')],
    ['soon', (server: Server) => server.listen(0, 'localhost')],
  ])('goes on where a server that listens %s tells of an error, and listens on', async (_, listenOn) => {
    const { outbox, send } = shop();
    const { publisher, published, release } = held();
    release();
    const listen = async () => {
      const server = createServer();
      await listenOn(server);
      return server;
    };
    const service = await withRelay({ outbox, relay: { publisher, interval: 1 }, listen });
    // The application must listen for it.
    expect(service.server.listenerCount('error')).toBe(0);
    const errors: Error[] = [];
    service.server.on('error', (error) => errors.push(error));
    service.server.emit('error', new Error('accept EMFILE'));
    await send('1');
    await expect.poll(() => published.length).toBe(1);
    expect(service.health()).toMatchObject({ ok: true, status: 'running' });
    expect(await isOpen(service.ended)).toBe(true);
    await service.stop();
    await service.ended;
    expect([errors.length, service.health().status]).toEqual([1, 'stopped']);
  });

  it('reports a relay that has ended, while the server continues', async () => {
    const { outbox, lose, errors, errorLogger } = shop();
    const relay = { publisher: held().publisher, errorLogger, interval: 1, storeOutageLimit: 0 };
    const service = await withRelay({ outbox, relay, listen: () => createServer().listen(0) });
    lose();
    await expect.poll(() => errors).toEqual([expect.objectContaining({ code: 'FATAL' })]);
    expect(service.health()).toMatchObject({ ok: false, status: 'failed', error: { code: 'FATAL' } });
    expect(service.server.listening).toBe(true);
    await expect(service.ended).rejects.toMatchObject({ code: 'FATAL' });
    await service.stop();
  });

  it('installs no signal handlers', async () => {
    const before = process.eventNames();
    const { outbox } = shop();
    const options = { outbox, relay: { publisher: held().publisher }, listen: () => createServer().listen(0) };
    await using _ = await withRelay(options);
    expect(process.eventNames()).toEqual(before);
  });
});

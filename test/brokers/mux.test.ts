import { describe, expect, it } from 'vitest';
import { PublishError } from '../../src/core/errors.js';
import { failureKind } from '../../src/core/publish/failure-kinds.js';
import { newMessage, type Message } from '../../src/core/contracts/message.js';
import { asBatchPublisher } from '../../src/core/publish/single-publisher.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import { Mux } from '../../src/brokers/mux.js';

const to = (route: string, key?: string): Message => newMessage(route, { key, metadata: { route } });
const ids = (messages: readonly Message[]): string[] => messages.map(({ id }) => id);
const view = (results: readonly PublishResult[]): string[] =>
  results.map((result) => (result.acknowledged ? 'ok' : failureKind(result.error)));

/** A publisher with a batch form, and the batches that it received. */
function batches(): BatchPublisher & { calls: string[][] } {
  const calls: string[][] = [];
  return {
    calls,
    publish: () => Promise.reject(new Error('the batch form was not used')),
    publishBatch: (messages) => {
      calls.push(ids(messages));
      return Promise.resolve(messages.map(() => ACKNOWLEDGED));
    },
  };
}

describe('Mux', () => {
  it('gives each route its messages in one batch, and returns the results in the order of the messages', async () => {
    const [a, b] = [batches(), batches()];
    const failing: BatchPublisher = {
      publish: () => Promise.reject(new Error('unused')),
      publishBatch: () => Promise.reject(new PublishError('down', { kind: 'connection' })),
    };
    const mux = new Mux('route', { a, b, failing });
    const messages = ['a', 'b', 'failing', 'a', 'none', 'b', 'failing'].map((route) => to(route));
    const results = await mux.publishBatch(messages);
    expect(view(results)).toEqual(['ok', 'ok', 'connection', 'ok', 'permanent', 'ok', 'connection']);
    const [a1, b1, , a2, , b2] = ids(messages);
    expect([a.calls, b.calls]).toEqual([[[a1, a2]], [[b1, b2]]]);
  });

  it('says which value has no route, and which routes exist', async () => {
    const mux = new Mux('route', { a: batches(), b: batches() });
    await expect(mux.publish(to('c'))).rejects.toMatchObject({
      kind: 'permanent',
      message: expect.stringMatching(
        /metadata "route" = "c", for which there is no route\. The known routes are "a", "b"/,
      ) as string,
    });
    await expect(mux.publish(newMessage('x'))).rejects.toThrow('has no metadata "route", for which there is no route');
    // Names that every object has are not routes.
    await expect(mux.publish(to('constructor'))).rejects.toMatchObject({ kind: 'permanent' });
    await expect(new Mux('constructor', { a: batches() }).publish(to('a'))).rejects.toThrow(
      'no metadata "constructor"',
    );
  });

  it('gives messages without a route to the fallback', async () => {
    const fallback = batches();
    const messages = [to('a'), to('c'), newMessage('x')];
    const results = await new Mux('route', { a: batches() }, { fallback }).publishBatch(messages);
    expect(view(results)).toEqual(['ok', 'ok', 'ok']);
    expect(fallback.calls).toEqual([ids(messages.slice(1))]);
  });

  it('fails messages for which a route did not answer', async () => {
    const silent: BatchPublisher = { publish: () => Promise.resolve(), publishBatch: () => Promise.resolve([]) };
    expect(view(await new Mux('route', { silent }).publishBatch([to('silent')]))).toEqual(['retryable']);
  });

  it.each([
    ['an empty key', () => new Mux('', { a: batches() }), 'metadataKey must be a non-empty string, got ""'],
    ['no routes', () => new Mux('route', {}), 'at least one publisher'],
    ['a route that is none', () => new Mux('route', { a: {} as Publisher }), 'route "a" must be a publisher'],
    ['a bad fallback', () => new Mux('r', { a: batches() }, { fallback: 1 as never }), 'fallback must be a publisher'],
    ['no concurrency', () => new Mux('r', { a: batches() }, { concurrency: 0 }), 'at least 1, got 0'],
  ])('refuses %s', (_, create, text) => {
    const message = expect.stringContaining(text) as string;
    expect(create).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', message }));
  });
});

describe('asBatchPublisher', () => {
  it('sends one message at a time within a key, and up to its concurrency across keys', async () => {
    const inFlight: (string | undefined)[] = [];
    let most = 0;
    const sent: string[] = [];
    const publisher = asBatchPublisher(
      {
        async publish({ id, key }) {
          if (key !== undefined) expect(inFlight).not.toContain(key);
          inFlight.push(key);
          most = Math.max(most, inFlight.length);
          await new Promise((resolve) => setTimeout(resolve, 1));
          inFlight.splice(inFlight.indexOf(key), 1);
          sent.push(id);
        },
      },
      3,
    );
    const messages = Array.from({ length: 40 }, (_, i) => to('x', i % 4 === 0 ? undefined : `k${String(i % 4)}`));
    expect(new Set(view(await publisher.publishBatch(messages)))).toEqual(new Set(['ok']));
    expect(most).toBe(3);
    for (const key of ['k1', 'k2', 'k3']) {
      const ofKey = ids(messages.filter((message) => message.key === key));
      expect(sent.filter((id) => ofKey.includes(id))).toEqual(ofKey);
    }
  });

  it('sends no message behind a failure of its key, keeps the error, and lets other keys continue', async () => {
    const sent: string[] = [];
    const boom = new Error('boom');
    const publisher = asBatchPublisher(
      {
        publish({ id, metadata }) {
          if (metadata['route'] === 'bad') return Promise.reject(boom);
          sent.push(id);
          return Promise.resolve();
        },
      },
      1,
    );
    const messages = [to('x', 'a'), to('bad', 'a'), to('x', 'a'), to('x', 'b'), to('bad'), to('x')];
    const results = await publisher.publishBatch(messages);
    expect(view(results)).toEqual(['ok', 'retryable', 'retryable', 'ok', 'retryable', 'ok']);
    expect(results[1]).toMatchObject({ error: boom });
    expect(results[2]).toMatchObject({
      error: { message: expect.stringContaining('an earlier message with the same key failed') as string, cause: boom },
    });
    expect([...sent].sort()).toEqual([0, 3, 5].map((i) => messages[i]?.id).sort());
  });

  it('stops after a failure of the connection, and after an abort', async () => {
    let calls = 0;
    const down: Publisher = {
      publish() {
        calls += 1;
        return Promise.reject(new PublishError('down', { kind: 'connection' }));
      },
    };
    const messages = Array.from({ length: 20 }, () => to('x'));
    expect(new Set(view(await asBatchPublisher(down, 2).publishBatch(messages)))).toEqual(new Set(['connection']));
    expect(calls).toBe(2);

    const controller = new AbortController();
    const aborting: Publisher = {
      publish() {
        controller.abort();
        return Promise.resolve();
      },
    };
    const { signal } = controller;
    const results = view(await asBatchPublisher(aborting, 1).publishBatch(messages, { signal }));
    expect(results).toEqual(['ok', ...Array<string>(19).fill('retryable')]);
  });
});

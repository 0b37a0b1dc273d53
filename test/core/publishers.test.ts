/** How publishers are called: how many at once, how many of one key, for how long. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { defineOutbox, type Message, type Publisher } from '../../src/index.js';
import { ACKNOWLEDGED, type BatchPublisher } from '../../src/adapter.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { Mux } from '../../src/brokers/mux.js';
import { PlainStore } from '../support/plain-store.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import {
  ListFeedStore,
  plainStore,
  recordingLogger,
  scripted,
  scriptedBatch,
  started,
  unpublished,
} from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
});

const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

describe('a publisher without a batch form', () => {
  test.each([1, 3, 10, 1_000])('has at most %i messages in flight, and never two of one key', async (concurrency) => {
    const texts = [...numbered('a', 40), ...numbered('b', 10), ...numbered('-', 30)].sort(
      (x, y) => Number(x.slice(1)) - Number(y.slice(1)),
    );
    const store = await plainStore(...texts);
    const inFlight = new Set<string>();
    let most = 0;
    const publisher = scripted(async (text) => {
      const key = text.startsWith('-') ? text : text[0]!;
      expect(inFlight).not.toContain(key);
      inFlight.add(key);
      most = Math.max(most, inFlight.size);
      for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
      inFlight.delete(key);
    });
    expect(await new Messenger(store, publisher, { concurrency }).publish()).toBe(80);
    // Two keys and thirty messages without one can be in flight together.
    expect(most).toBe(Math.min(concurrency, 32));
    for (const key of ['a', 'b']) {
      const ofKey = publisher.sent.filter((text) => text.startsWith(key));
      expect(ofKey).toEqual(texts.filter((text) => text.startsWith(key)));
    }
  });

  test('has ten in flight by default, without a warning about too many listeners', async () => {
    const warnings: string[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning.name);
    process.on('warning', onWarning);
    const store = await plainStore(...numbered('-', 30));
    const broker = gate();
    const publisher = scripted(() => broker.opened);
    const publishing = new Messenger(store, publisher).publish();
    await until(() => publisher.sent.length === 10, 'ten in flight');
    await new Promise((resolve) => setImmediate(resolve));
    expect(publisher.sent).toHaveLength(10);
    broker.open();
    expect(await publishing).toBe(30);
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });

  test('is timed out if it hangs on one message and ignores its signal, and the rest goes on', async () => {
    vi.useFakeTimers();
    const store = await plainStore('a1', 'a2', 'b1');
    let hang = true;
    const signals: (AbortSignal | undefined)[] = [];
    const publisher = scripted((text, options) => {
      if (text !== 'a1' || !hang) return undefined;
      signals.push(options?.signal);
      return new Promise(() => undefined);
    });
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { publishTimeout: 5_000, errorLogger }));
    await vi.advanceTimersByTimeAsync(4_999);
    expect(errorLogger.errors).toEqual([]);
    expect(signals.map((signal) => signal?.aborted)).toEqual([false]);
    await vi.advanceTimersByTimeAsync(2);
    expect(signals[0]?.aborted).toBe(true);
    expect(errorLogger.text()).toMatch(/attempt 1, .*the publisher did not answer within 5000 ms/);
    expect(await unpublished(store)).toEqual(['a1', 'a2']);
    hang = false;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(publisher.acknowledged).toEqual(['b1', 'a1', 'a2']);
    await relay.stop();
  });

  test('may take longer for a page of one key than for one message', async () => {
    vi.useFakeTimers();
    const store = await plainStore(...numbered('a', 20));
    const publisher = scripted(() => new Promise((resolve) => setTimeout(resolve, 900)));
    const publishing = new Messenger(store, publisher, { publishTimeout: 1_000 }).publish();
    await vi.advanceTimersByTimeAsync(18_000);
    expect(await publishing).toBe(20);
  });

  test('delays an abort by at most publishTimeout if it hangs, not by the timeout of a page', async () => {
    vi.useFakeTimers();
    const store = await plainStore(...numbered('a', 50), ...numbered('-', 50));
    const publisher = scripted(() => new Promise(() => undefined));
    const options = { publishTimeout: 5_000, concurrency: 2, errorLogger: recordingLogger() };
    const relay = started(new Messenger(store, publisher, options));
    await vi.advanceTimersByTimeAsync(1_000);
    let ended = false;
    const stopping = relay.stop().then(() => (ended = true));
    await vi.advanceTimersByTimeAsync(3_000);
    expect(ended).toBe(false);
    await vi.advanceTimersByTimeAsync(1_001);
    expect(ended).toBe(true);
    await stopping;
    expect(publisher.sent).toHaveLength(2);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a publisher with a batch form', () => {
  test('never gets two messages of one key in one call', async () => {
    const store = await plainStore('a1', 'a2', 'b1', '-1', 'a3', '-2', 'b2');
    const publisher = scriptedBatch();
    expect(await new Messenger(store, publisher).publish()).toBe(7);
    expect(publisher.calls).toEqual([['a1', 'b1', '-1', '-2'], ['a2', 'b2'], ['a3']]);
  });

  test('gets a page as it is if it keeps the order of keys', async () => {
    const store = await plainStore('a1', 'a2', 'b1', '-1', 'a3', '-2', 'b2');
    const publisher = scriptedBatch(() => undefined, { batchKeepsKeyOrder: true });
    expect(await new Messenger(store, publisher).publish()).toBe(7);
    expect(publisher.calls).toEqual([['a1', 'a2', 'b1', '-1', 'a3', '-2', 'b2']]);
  });

  test('is called only through its batch method', async () => {
    const store = await plainStore('a1');
    const publisher = scriptedBatch();
    publisher.publish = () => Promise.reject(new Error('not this one'));
    expect(await new Messenger(store, publisher).publish()).toBe(1);
  });

  test('is timed out and aborted if it hangs, and the batch is sent again', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1', 'b1');
    let hang = true;
    const publisher = scriptedBatch(() => (hang ? new Promise(() => undefined) : undefined));
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { publishTimeout: 5_000, errorLogger }));
    await vi.advanceTimersByTimeAsync(5_001);
    expect(errorLogger.text()).toMatch(
      /^the broker does not answer: the publisher did not answer within 5000 ms, trying again in \d+ ms$/,
    );
    hang = false;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(publisher.acknowledged).toEqual(['a1', 'b1']);
    expect(store.isDone).toBe(true);
    await relay.stop();
  });

  test('cannot acknowledge messages after the deadline', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    store.add('a1');
    const late = gate();
    const publisher = scripted(() => late.opened);
    const messenger = new Messenger(store, publisher, {
      publishTimeout: 5_000,
      retry: { minDelay: 3_600_000, maxDelay: 3_600_000 },
      errorLogger: recordingLogger(),
    });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(5_001);
    late.open();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(publisher.acknowledged).toEqual(['a1']);
    expect(messenger.circuit).toMatchObject({ state: 'open', failures: 1 });
    expect(store.cursor).toBe(0);
    await relay.stop();
  });
});

describe('a publisher that is a function', () => {
  test('publishes, and fails with the error that it throws', async () => {
    const store = await plainStore('a0', 'b0');
    const seen: string[] = [];
    const messenger = new Messenger(store, async (message, options) => {
      seen.push(new TextDecoder().decode(message.payload));
      expect(options?.signal?.aborted).toBe(false);
      if (seen.length === 1) throw new Error('no');
    });
    await expect(messenger.publish()).rejects.toThrow('1 messages were published, with 1 failures');
    expect(seen).toEqual(['a0', 'b0']);
  });

  test('can publish for an outbox and for a route of a Mux', async () => {
    const store = new PlainStore();
    const outbox = defineOutbox({ store, topics: { placed: { schema: z.string() } } });
    const seen: string[] = [];
    const to = (name: string) => async (message: Message) => void seen.push(`${name} ${String(message.topic)}`);
    const send = () => store.transaction((tx) => outbox.send(tx, 'placed', 'x', { metadata: { to: 'a' } }));
    await send();
    expect(await outbox.drain({ publisher: to('drain') })).toBe(1);
    await send();
    const relay = await outbox.relay({ publisher: to('relay'), interval: 1 });
    await expect.poll(() => seen.length).toBe(2);
    await relay.stop();
    const mux = new Mux('to', { a: to('route') }, { fallback: to('fallback') });
    await send();
    await store.transaction((tx) => outbox.send(tx, 'placed', 'y'));
    expect(await outbox.drain({ publisher: mux })).toBe(2);
    expect(seen.sort()).toEqual(['drain placed', 'fallback placed', 'relay placed', 'route placed']);
    // @ts-expect-error -- what it resolves to must be the acknowledgement: a function that returns nothing has not waited
    expect(() => new Messenger(store, (message: Message) => message.id)).not.toThrow();
    // @ts-expect-error -- a number is no message
    expect(() => new Messenger(store, async (message: number) => message)).not.toThrow();
  });
});

test('accepts results that are not a promise, and says what is wrong with invalid results', async () => {
  const publish = () => Promise.reject(new Error('not called'));
  const at = (publishBatch: unknown) => ({ publish, publishBatch }) as BatchPublisher;
  const all = at((messages: readonly Message[]) => messages.map(() => ACKNOWLEDGED));
  expect(await new Messenger(await plainStore('a0', 'b0'), all).publish()).toBe(2);
  const none = new Messenger(
    await plainStore('a0'),
    at(() => undefined),
  ).publish();
  await expect(none).rejects.toThrow(
    'the publisher answered undefined results for 1 messages, so all messages of the call count as not published',
  );
  const plain = { publish: () => undefined } as unknown as Publisher;
  expect(await new Messenger(await plainStore('a0'), plain).publish()).toBe(1);
});

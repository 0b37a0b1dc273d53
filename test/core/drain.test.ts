/** A drain works over one open feed, however many pages it publishes. */
import { describe, expect, it } from 'vitest';
import { MessengerError, type PublishError } from '../../src/core/errors.js';
import { defineOutbox } from '../../src/core/outbox/outbox.js';
import { drained, type DrainOptions } from '../../src/core/relay/drain.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { relaySettings } from '../../src/core/relay/settings.js';
import { ListFeedStore, refusal, scripted } from './scripted.js';

const TEXTS = ['a1', 'b1', 'a2', 'c1', 'b2'];

function storeOf(...texts: readonly string[]) {
  const store = new ListFeedStore();
  store.add(...texts);
  const outbox = defineOutbox({ store: store as never, topics: {} });
  const drain = (options: DrainOptions) => outbox.drain({ publishBatchSize: 1, errorLogger: silent, ...options });
  return { store, drain };
}

const silent = { error: () => undefined };

describe('drain', () => {
  it('opens one feed, however many pages it publishes, and closes it', async () => {
    const { store, drain } = storeOf(...TEXTS);
    const publisher = scripted();
    expect(await drain({ publisher })).toBe(5);
    expect(publisher.acknowledged).toEqual(TEXTS);
    expect(store.isDone).toBe(true);
    expect(store.opened).toBe(1);
    expect(store.held).toBe(false);
  });

  it('gives the destination back every ten seconds, so that other relays get a turn', async () => {
    const { store } = storeOf(...TEXTS);
    let now = 0;
    const publisher = scripted(() => {
      now += 6_000;
    });
    const clock = { now: () => now, setTimeout: () => () => undefined, random: () => 0 };
    const settings = relaySettings(store, publisher, { publishBatchSize: 1, errorLogger: silent }, clock);
    expect(await drained(settings, 60_000)).toBe(5);
    expect(publisher.acknowledged).toEqual(TEXTS);
    expect(store.opened).toBe(3);
  });

  it('publishes nothing while another relay holds the destination', async () => {
    const { store, drain } = storeOf(...TEXTS);
    const publisher = scripted();
    const other = await store.openFeed({ destination: 'default', pageSize: 1 });
    expect(await drain({ publisher })).toBe(0);
    await other?.close();
    expect(await drain({ publisher })).toBe(5);
  });

  it('opens another feed when the lease is lost between two pages', async () => {
    const { store, drain } = storeOf(...TEXTS);
    const publisher = scripted();
    let settlements = 0;
    store.fault = (call) => {
      if (call === 'settled' && (settlements += 1) === 2) store.revoke();
    };
    expect(await drain({ publisher })).toBe(5);
    expect(publisher.sent).toEqual(TEXTS);
    expect(store.opened).toBe(2);
  });

  it('ends if its lease is lost in the middle of a page, which the next drain publishes again', async () => {
    const { store, drain } = storeOf(...TEXTS);
    const publisher = scripted((text) => {
      if (text === 'b1' && store.opened === 1) store.revoke();
    });
    await expect(drain({ publisher })).rejects.toMatchObject({ code: 'LEASE_LOST' });
    expect(publisher.sent).toEqual(['a1', 'b1']);
    expect(await drain({ publisher })).toBe(4);
    expect(publisher.sent).toEqual(['a1', 'b1', ...TEXTS.slice(1)]);
  });

  it('does not wait for messages that it parked itself, however soon they are due', async () => {
    const { store, drain } = storeOf(...TEXTS);
    const publisher = scripted(() => {
      throw refusal('retryable', 'no');
    });
    await expect(drain({ publisher, retry: { minDelay: 1, maxDelay: 1 } })).rejects.toThrow(
      '0 messages were published',
    );
    expect(publisher.sent.length).toBeLessThan(30);
    expect(store.cursor).toBe(5);
    expect(store.held).toBe(false);
  });

  it('reports the failures of every page in one error', async () => {
    const { drain } = storeOf(...TEXTS);
    const publisher = scripted((text) => {
      if (text.startsWith('a1') || text.startsWith('c')) throw refusal('retryable', `${text} is refused`);
    });
    const error = (await drain({ publisher }).catch((thrown: unknown) => thrown)) as PublishError;
    expect(error.message).toMatch(/^2 messages were published, but others failed: /);
    const pages = (error.cause as AggregateError).errors as PublishError[];
    expect(pages.map(({ message }) => /\w\d is refused/.exec(message)?.[0])).toEqual([
      'a1 is refused',
      'c1 is refused',
    ]);
  });

  it('closes its feed and rejects with the store’s error when the store fails', async () => {
    const { store, drain } = storeOf(...TEXTS);
    store.fault = (call) => {
      if (call === 'read' && store.cursor === 2) throw new MessengerError('NOT_ALLOWED', 'no right to read');
    };
    const publisher = scripted();
    await expect(drain({ publisher })).rejects.toThrow('no right to read');
    expect(publisher.sent).toEqual(TEXTS.slice(0, 2));
    expect(store.held).toBe(false);
  });

  it('refuses a wrong option before it adds a destination', async () => {
    const declared: string[] = [];
    const store = Object.assign(new ListFeedStore(), {
      declareDestinations: (names: readonly string[]) => Promise.resolve(void declared.push(...names)),
    });
    const schema = { '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value }) } } as const;
    const outbox = defineOutbox({ store: store as never, topics: { sold: { schema, destination: 'billing' } } });
    const options = { publisher: scripted(), destination: 'billing' };
    const wrong = { ...options, concurrency: 0 };
    await expect(outbox.drain(wrong)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(outbox.relay(wrong)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(declared).toEqual([]);
    await outbox.drain(options);
    expect(declared).toEqual(['billing']);
  });

  it.each(['open', 'retries', 'read'] as const)(
    'does not fail when its signal aborts a call of the store, whatever error the store throws: %s',
    async (aborted) => {
      const { store, drain } = storeOf(...TEXTS);
      let stop = new AbortController();
      let calls = 0;
      store.fault = (call) => {
        if (call !== aborted || (calls += 1) < (aborted === 'open' ? 1 : 2)) return;
        stop.abort();
        throw new MessengerError('TIMEOUT', 'it was no longer waited for', { cause: stop.signal.reason });
      };
      const publisher = scripted();
      const published = aborted === 'open' ? 0 : 1;
      expect(await drain({ publisher, signal: stop.signal })).toBe(published);
      expect(store.held).toBe(false);
      stop = new AbortController();
      calls = 1;
      const messenger = new Messenger(store, publisher, { publishBatchSize: 1 });
      expect(await messenger.publish({ signal: stop.signal })).toBe(0);
      expect([publisher.sent.length, store.held]).toEqual([published, false]);
    },
  );

  it('sends no more once its time is over, even if the process was frozen and no timer has run', async () => {
    const { store } = storeOf(...TEXTS);
    let now = 0;
    const publisher = scripted(() => {
      now += 500;
    });
    const timers = new Set<unknown>();
    const clock = {
      now: () => now,
      setTimeout: (callback: () => void) => {
        timers.add(callback);
        return () => void timers.delete(callback);
      },
      random: () => 0,
    };
    const settings = relaySettings(store, publisher, { publishBatchSize: 1, errorLogger: silent }, clock);
    expect(await drained(settings, 1_000)).toBe(2);
    expect(timers).toEqual(new Set());
  });

  describe('cleans', () => {
    function cleaning(options: Pick<DrainOptions, 'cleanUp' | 'signal'>) {
      const { store, drain } = storeOf('a1');
      const cleanings: number[] = [];
      store.deletePublishedByExpiration = async (expiration?: number) => void cleanings.push(expiration!);
      const publisher = scripted();
      return drain({ publisher, ...options }).then((published) => ({ published, cleanings }));
    }

    it('after it has published, if cleanUp is set', async () => {
      expect(await cleaning({ cleanUp: 60_000 })).toEqual({ published: 1, cleanings: [60_000] });
    });

    it('nothing without cleanUp', async () => {
      expect(await cleaning({})).toEqual({ published: 1, cleanings: [] });
    });

    it('nothing if its signal has aborted', async () => {
      const cleaned = await cleaning({ cleanUp: 60_000, signal: AbortSignal.abort() });
      expect(cleaned).toEqual({ published: 0, cleanings: [] });
    });
  });
});

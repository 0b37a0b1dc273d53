/** A relay that always has something in flight: what it holds does not grow. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import type { Feed, Page } from '../../src/core/contracts/feed.js';
import type { Message } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { ACKNOWLEDGED, type BatchPublisher } from '../../src/core/contracts/publisher.js';
import type { FeedStore } from '../../src/core/contracts/store.js';
import { gate, until } from '../../src/testing/conformance/assert.js';
import { FAST, message, started } from './scripted.js';

/** A store that never runs out of messages, each a page. */
class EndlessStore implements FeedStore {
  readonly pages: WeakRef<Page>[] = [];
  settled = 0;

  messages = () => Promise.resolve([]);
  published = () => Promise.resolve();
  deletePublishedByExpiration = () => Promise.resolve();

  openFeed(): Promise<Feed> {
    return Promise.resolve<Feed>({
      lost: new AbortController().signal,
      partitions: [0],
      unbalanced: false,
      rebalance: () => Promise.resolve(),
      isParked: () => false,
      waiting: () => 0,
      read: async () => {
        await new Promise((resolve) => setImmediate(resolve));
        const page: Page = { messages: [message(`-${String(this.pages.length)}`)] };
        this.pages.push(new WeakRef(page));
        return page;
      },
      retries: () => Promise.resolve({ messages: [], attempts: [] }),
      settle: (page) => {
        this.settled += page.messages.length;
        return Promise.resolve();
      },
      idle: () => Promise.resolve(),
      close: () => Promise.resolve(),
    });
  }
}

/** Answers as told, call by call. */
function publisherOf(answer: (call: number) => Promise<void>): BatchPublisher & { calls: number } {
  const publisher = {
    calls: 0,
    batchKeepsKeyOrder: true,
    publish: () => Promise.resolve(),
    async publishBatch(messages: readonly Message[]) {
      await answer(publisher.calls++);
      return messages.map(() => ACKNOWLEDGED);
    },
  };
  return publisher;
}

test('forgets settled messages even if a page is always in flight', async () => {
  const store = new EndlessStore();
  const begun: (() => void)[] = [];
  // Each call is answered once the next one has begun.
  const publisher = publisherOf((call) => {
    begun[call - 1]?.();
    return new Promise((resolve) => (begun[call] = resolve));
  });
  const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 10 }));
  await until(() => store.settled > 300, 'three hundred pages');
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const kept = store.pages.slice(0, 250).filter((page) => page.deref() !== undefined);
  expect(kept.length).toBeLessThan(10);
  const stopped = relay.stop();
  for (const end of begun) end();
  await stopped;
});

test('keeps few pages behind an unanswered page, however small they are', async () => {
  const store = new EndlessStore();
  const broker = gate();
  const publisher = publisherOf((call) => (call === 0 ? broker.opened : Promise.resolve()));
  const relay = started(new Messenger(store, publisher, { ...FAST, publishBatchSize: 1_000, pipelineDepth: 2 }));
  await until(() => publisher.calls > 10, 'pages behind the first');
  for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(publisher.calls).toBeLessThanOrEqual(32);
  expect(store.settled).toBe(0);
  broker.open();
  await until(() => store.settled > 100, 'more');
  await relay.stop();
});

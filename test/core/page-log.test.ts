/** Which pages of the log are settled together. */
import { expect, test } from 'vitest';
import type { Page } from '../../src/core/contracts/feed.js';
import type { PageOutcome } from '../../src/core/publish/types.js';
import { PageLog, type LogPage } from '../../src/core/relay/page-log.js';
import { ListFeedStore, message, textOf } from './scripted.js';

const unchanged: PageOutcome = { acknowledged: 0, toPark: [], untried: [], late: [] };
const changed: PageOutcome = { ...unchanged, acknowledged: 1 };

async function pageLog() {
  const feed = await new ListFeedStore().openFeed({ destination: 'default', pageSize: 1 });
  const log = new PageLog(feed!);
  const publish = (text: string) =>
    log.publish({ messages: [message(text)] }, () => ({
      outcome: Promise.resolve(unchanged),
      isBusy: () => false,
      hasParked: () => false,
    }));
  const settled: string[] = [];
  const settle = () =>
    log.settle((page: Page) => {
      settled.push(...page.messages.map(textOf));
      return Promise.resolve();
    });
  const published = (...pages: readonly (readonly [LogPage, PageOutcome])[]) => {
    for (const [page, outcome] of pages) log.published(page, outcome);
  };
  return { log, publish, published, settle, settled };
}

test('pages in which nothing was done wait for a later page, and are then settled with it', async () => {
  const { log, publish, published, settle, settled } = await pageLog();
  const [first, second, third] = ['a1', 'b1', 'c1'].map(publish);
  published([first!, unchanged]);
  await settle();
  expect([settled, log.size, log.gathered]).toEqual([[], 1 + 2, 1]);
  published([second!, changed], [third!, unchanged]);
  await settle();
  expect([settled, log.size, log.gathered]).toEqual([['a1', 'b1'], 1, 1]);
});

test('no page is settled before a page that was read earlier and is still being published', async () => {
  const { publish, published, settle, settled } = await pageLog();
  const [first, second] = ['a1', 'b1'].map(publish);
  published([second!, changed]);
  await settle();
  expect(settled).toEqual([]);
  published([first!, changed]);
  await settle();
  expect(settled).toEqual(['a1', 'b1']);
});

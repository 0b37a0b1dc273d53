/** The programs and commands of docs/operate. */
import { expect, inject, it } from 'vitest';
import { messenger } from '../cli/support.js';
import { newDatabase } from '../support/database.js';
import { pages, sampleRunner } from './sample-runner.js';

const start = sampleRunner();

const database = () => newDatabase(inject('postgres')[17]);

it('migrate: migrates in a release step, and can run again', async () => {
  const url = await database();
  const first = await start('migrate', { DATABASE_URL: url });
  expect([await first.ended, first.output()]).toEqual([0, expect.stringContaining('applied 0001_outbox.sql, ')]);
  const second = await start('migrate', { DATABASE_URL: url });
  expect([await second.ended, second.output()]).toEqual([0, 'nothing to do\n']);
});

it('migration-script: prints the whole script, and only what is new', async () => {
  const sample = await start('migration-script', {});
  const [all, next] = [0, 10].map(
    (from) =>
      `-- messenger-outbox, from version ${String(from)} of its tables to 11. To print the next upgrade: messenger migrate --sql --no-transaction --from 11`,
  );
  expect([await sample.ended, sample.output()]).toEqual([0, `${String(all)}\n${String(next)}\n`]);
  // What the page shows of it.
  expect(pages.get('docs/operate/migration-tools.md')).toContain(all);
  const printed = await messenger('', 'migrate', '--sql', '--no-transaction');
  expect([printed.code, printed.stdout[0]]).toEqual([0, all]);
});

it('roles: uses custom role names, and reports extra rights', async () => {
  const url = await database();
  const sample = await start('roles', { DATABASE_URL: url });
  expect([await sample.ended, sample.output()]).toEqual([
    0,
    'PUBLIC holds SELECT ON "messenger"."messages"\n0 are left\n',
  ]);
  const page = pages.get('docs/operate/least-rights.md');
  expect(page).toContain(
    '-- PUBLIC holds SELECT ON "messenger"."messages"\nREVOKE SELECT ON "messenger"."messages" FROM PUBLIC;',
  );
});

it('cleaning: reports what is kept and why', async () => {
  const sample = await start('cleaning', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    [
      'older than 3600000 ms: 0 slices emptied, 0 messages moved',
      'kept messages_: not expired',
      'older than 0 ms: 1 slices emptied, 0 messages moved',
    ],
  ]);
});

it('watching: prints events, the state of a destination and health', async () => {
  const sample = await start('watching', { DATABASE_URL: await database(), PORT: '0' });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    [
      'health: running, publishing: true',
      '{"name":"default","pending":0,"oldestPending":null,"dead":0,"blocked":0,"stalledSince":null}',
      'stored 1, published 1, dead 0',
    ],
  ]);
});

it('several-relays: share the partitions, and take over from a relay that stops', async () => {
  const sample = await start('several-relays', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output()]).toEqual([0, 'shared: 4 and 4\nalone again: 8\n']);
});

it('environment: a clone publishes nothing until it is rebased', async () => {
  const sample = await start('environment', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output()]).toEqual([
    0,
    'SCHEMA_MISMATCH\nit belongs to staging, and has published 0\n',
  ]);
});

it('waking: wakes a sleeping relay by a commit', async () => {
  const url = await database();
  const sample = await start('waking', { DATABASE_URL: url, DIRECT_URL: url });
  expect([await sample.ended, sample.output()]).toEqual([0, 'published at once\n']);
});

it('drain-by-cron: drains as a cron job does', async () => {
  const sample = await start('drain-by-cron', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output()]).toEqual([0, 'published 1\n']);
});

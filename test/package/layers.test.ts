/** The layering check fails: for each rule a file that breaks it, and the rule's name in the report. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const repository = fileURLToPath(new URL('../../', import.meta.url));

interface Named {
  readonly name: string;
}
interface Violation {
  readonly from: string;
  readonly to: string;
  readonly rule: Named;
  /** A cycle is reported once, at one of its files. */
  readonly cycle?: readonly Named[];
}

const rules = (createRequire(import.meta.url)('../../.dependency-cruiser.cjs') as { forbidden: Named[] }).forbidden;

/** Rule, file that breaks it, what that file says. All are put into one copy, so names must not clash. */
const breaches: readonly (readonly [rule: string, file: string, text: string])[] = [
  ['core-imports-only-core', 'src/core/x-node.ts', `import 'node:fs';`],
  [
    'core-imports-only-core',
    'src/core/x-node-type.ts',
    `import type { Stats } from 'node:fs';\nexport type X = Stats;`,
  ],
  ['core-imports-only-core', 'src/core/x-npm.ts', `import 'pg';`],
  ['core-imports-only-core', 'src/core/x-dynamic.ts', `export const x = () => import('pg');`],
  ['core-imports-only-core', 'src/core/x-store.ts', `import '../stores/one/index.js';`],
  ['root-imports-only-core', 'src/index.ts', `export * from './stores/one/index.js';`],
  ['nothing-imports-the-root', 'src/brokers/x-root.ts', `import '../index.js';`],
  ['nothing-imports-the-root', 'src/stores/x-root/index.ts', `import 'messenger-outbox';`],

  ['core-util', 'src/core/util/x-contract.ts', `import '../contracts/message.js';`],
  ['core-contracts', 'src/core/contracts/x-publish.ts', `import '../publish/lanes.js';`],
  ['core-publish', 'src/core/publish/x-relay.ts', `import '../relay/pipeline.js';`],
  ['core-relay', 'src/core/relay/x-outbox.ts', `import '../outbox/topics.js';`],
  ['core-outbox', 'src/core/outbox/x-publish.ts', `import '../publish/lanes.js';`],
  ...['sql', 'schema', 'drivers', 'write', 'relay', 'inbox'].map(
    (of) => [`postgres-${of}`, `src/stores/postgres/${of}/x-ops.ts`, `import '../ops/clean.js';`] as const,
  ),
  ['postgres-ops', 'src/stores/postgres/ops/x-relay.ts', `import '../relay/cursor.js';`],
  ['postgres-sql', 'src/stores/postgres/sql/x-index.ts', `import '../index.js';`],

  ['stores-apart', 'src/stores/x-other/index.ts', `import '../one/index.js';`],
  [
    'stores-apart',
    'src/stores/x-other-type/index.ts',
    `import type { one } from '../one/index.js';\nexport type X = typeof one;`,
  ],
  ['stores-apart', 'src/stores/x-by-name/index.ts', `import 'messenger-outbox/memory';`],
  ['bridges-apart', 'src/bridges/x-other.ts', `import './one.js';`],
  ['bridges-apart', 'src/bridges/_shared/x-one.ts', `import '../one.js';`],
  ['brokers-apart', 'src/brokers/x-other.ts', `import './one.js';`],
  ['brokers-apart', 'src/brokers/x-folder/index.ts', `import '../one.js';`],
  ['frameworks-apart', 'src/frameworks/x-other.ts', `import './one.js';`],

  ['stores-layer', 'src/stores/x-broker/index.ts', `import '../../brokers/one.js';`],
  ['bridges-layer', 'src/bridges/x-broker.ts', `import '../brokers/one.js';`],
  ['brokers-layer', 'src/brokers/x-store.ts', `import '../stores/one/index.js';`],
  ['frameworks-layer', 'src/frameworks/x-broker.ts', `import '../brokers/one.js';`],
  ['inbox-layer', 'src/inbox/x-store.ts', `import '../stores/one/index.js';`],
  ['testing-layer', 'src/testing/x-store.ts', `import '../stores/one/index.js';`],

  ['testing-pure', 'src/testing/x-runner.ts', `import 'vitest';`],
  ['testing-pure', 'src/testing/x-node.ts', `import 'node:assert';`],
  ['bridges-pure', 'src/bridges/x-client.ts', `import 'pg';`],
  ['frameworks-pure', 'src/frameworks/x-client.ts', `import 'pg';`],
  ['frameworks-pure', 'src/frameworks/nest-alike/index.ts', `import '@nestjs/core';`],
  ['nest-imports-only-nest', 'src/frameworks/nest/x-common.ts', `import '@nestjs/common';`],
  ['inbox-pure', 'src/inbox/x-client.ts', `import 'pg';`],
  ['stores-import-no-client', 'src/stores/x-client/index.ts', `import type { Pool } from 'pg';\nexport type X = Pool;`],
  ['brokers-without-node', 'src/brokers/x-node.ts', `import 'node:crypto';`],
  ['only-declared-peers', 'src/brokers/x-undeclared.ts', `import 'vitest';`],
  ['only-cli-imports-commander', 'src/brokers/x-commander.ts', `import 'commander';`],
  ['only-tests-import-testing', 'src/brokers/x-testing.ts', `import '../testing/one.js';`],
  ['only-tests-import-testing', 'src/cli/x-testing.ts', `import '../testing/one.js';`],
  ['only-tests-import-testing', 'bench/x-testing.ts', `import '../src/testing/one.js';`],
  ['nothing-imports-cli', 'src/inbox/x-cli.ts', `import '../cli/one.js';`],
  ['src-imports-only-src', 'src/cli/x-test.ts', `import '../../test/one.js';`],
  ['src-imports-only-src', 'src/stores/x-bench/index.ts', `import '../../../bench/one.js';`],
  ['no-circular', 'src/brokers/x-circular/index.ts', `export { a } from './a.js';\nexport const b = 1;`],
  ['no-circular', 'src/brokers/x-circular/a.ts', `export { b as a } from './index.js';`],
  ['no-circular', 'src/bridges/x-circular/index.ts', `import type { A } from './a.js';\nexport type B = A[];`],
  ['no-circular', 'src/bridges/x-circular/a.ts', `import type { B } from './index.js';\nexport type A = B | 1;`],
  ['no-orphans', 'src/stores/x-orphan/alone.ts', `export const alone = 1;`],
  ['not-to-unresolvable', 'src/brokers/x-nowhere.ts', `import './nowhere.js';`],
];

/** Files that breaches import, and that break nothing. */
const bystanders: readonly (readonly [file: string, text: string])[] = [
  ['src/stores/one/index.ts', `import { x } from '../../core/x-leaf.js';\nexport const one = x;`],
  ['src/bridges/one.ts', `import './_shared/x-leaf.js';\nexport { x } from '../core/x-leaf.js';`],
  ['src/brokers/one.ts', `import '@aws-sdk/client-sns';\nimport './one/part.js';`],
  ['src/brokers/one/part.ts', `export { x } from '../../core/x-leaf.js';`],
  ['src/frameworks/one.ts', `import './_shared/x-leaf.js';\nexport { x } from '../core/x-leaf.js';`],
  ['src/testing/one.ts', `export { x } from '../core/x-leaf.js';`],
  ['src/cli/one.ts', `import 'commander';\nimport '../stores/one/index.js';\nimport '../brokers/one.js';`],
  ...['core', 'bridges/_shared', 'frameworks/_shared'].map(
    (of) => [`src/${of}/x-leaf.ts`, 'export const x = 1;'] as const,
  ),
  ['test/one.ts', `import '../src/testing/one.js';`],
  ['bench/one.ts', `import '../src/stores/one/index.js';`],
];

const folder = await mkdtemp(join(tmpdir(), 'layers-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

async function put(file: string, text: string): Promise<void> {
  const path = join(folder, file);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${text}\n`);
}

/** The check as `npm run check:layers` runs it, in the copy. */
async function cruise(): Promise<Violation[]> {
  const args = ['--config', '.dependency-cruiser.cjs', '--output-type', 'json', 'src', 'bench', 'test'];
  const binary = join(repository, 'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs');
  const output = await new Promise<string>((resolve, reject) => {
    execFile(process.execPath, [binary, ...args], { cwd: folder, maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      // It exits with the number of violations; without a report it did not get that far.
      if (stdout.startsWith('{')) resolve(stdout);
      else reject(new Error(`no report: ${stderr}`, { cause: error }));
    });
  });
  return (JSON.parse(output) as { summary: { violations: Violation[] } }).summary.violations;
}

describe('the layering check', () => {
  let before: Violation[];
  let after: Violation[];

  beforeAll(async () => {
    for (const file of ['src', 'package.json', 'tsconfig.json', '.dependency-cruiser.cjs']) {
      await cp(join(repository, file), join(folder, file), { recursive: true });
    }
    await symlink(join(repository, 'node_modules'), join(folder, 'node_modules'));
    for (const [file, text] of bystanders) await put(file, text);
    before = await cruise();
    for (const [, file, text] of breaches) await put(file, text);
    after = await cruise();
  });

  test('passes on src as it is, and on what is allowed', () => {
    expect(before).toEqual([]);
  });

  test.each(breaches)('%s fails for %s', (rule, file) => {
    const reported = after.filter(({ from, cycle = [] }) => from === file || cycle.some(({ name }) => name === file));
    expect(reported.map((violation) => violation.rule.name)).toContain(rule);
  });

  test('every rule is broken above', () => {
    expect(new Set(breaches.map(([rule]) => rule))).toEqual(new Set(rules.map((rule) => rule.name)));
  });
});

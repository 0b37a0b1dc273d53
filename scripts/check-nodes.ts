/**
 * Installs the packed package as pnpm lays it out, where nothing is found that is not declared, and requires and
 * imports every subpath under each supported version of Node. It downloads pnpm, the Nodes and the AWS clients.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import manifest from '../package.json' with { type: 'json' };
import { consumer, problemsOf, type Report } from './consumer.js';
import { packInto, run } from './pack.js';

const NODES = [20, 22, 24];
const PNPM = 'pnpm@10';

const folder = mkdtempSync(join(tmpdir(), 'nodes-'));

const problems: string[] = [];
try {
  const tarball = packInto(folder);
  const clients = (
    [
      '@aws-sdk/client-sns',
      '@aws-sdk/client-sqs',
      '@nestjs/common',
      '@nestjs/core',
      'reflect-metadata',
      'rxjs',
    ] as const
  ).map((name) => `${name}@${manifest.devDependencies[name]}`);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true }));
  writeFileSync(join(folder, 'main.js'), consumer);
  run(folder, 'npx', '-y', PNPM, 'add', '--ignore-workspace', tarball, ...clients);
  for (const major of NODES) {
    const report = JSON.parse(run(folder, 'npx', '-y', '-p', `node@${String(major)}`, 'node', 'main.js')) as Report;
    const found = problemsOf(report);
    if (report.node !== major) found.push(`this is Node ${String(report.node)}`);
    problems.push(...found.map((problem) => `Node ${String(major)}: ${problem}`));
    console.log(`Node ${String(major)}: ${found.length === 0 ? 'ok' : 'FAILED'}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);

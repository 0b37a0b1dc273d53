/**
 * `npm run mutants`: changes the sources in a few hundred places, one at a time, and runs the tests that reach the place.
 * A change that no test notices survives. Prints the survivors, and fails when they are too many.
 *
 * A whole run takes many hours, so a seeded sample is drawn: spans of lines, from all files alike.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Stryker } from '@stryker-mutator/core';
import { chanceOf, type Chance } from '../test/simulation/chance.js';
import { isAlive, type Tested } from './mutants-reporter.js';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Part {
  readonly sources: string;
  /** Globs of the tests that run for its mutants. */
  readonly tests: readonly string[];
  /** How many of a hundred mutants the tests must kill. */
  readonly floor: number;
}

const PARTS: Readonly<Record<string, Part>> = {
  core: {
    sources: 'src/core',
    tests: [
      'test/core/**/*.test.ts',
      'test/inbox/inbox.test.ts',
      'test/stores/memory.test.ts',
      'test/testing/application.test.ts',
      'test/simulation/simulation.test.ts',
    ],
    floor: 90,
  },
  postgres: {
    sources: 'src/stores/postgres',
    // Without the tests that take minutes each, such as those of plans over a million messages.
    tests: [
      'test/stores/postgres/!(plan|size|moved*|stress|settings|publications|migrate|versions|lookalikes).test.ts',
      'test/inbox/*.test.ts',
    ],
    floor: 85,
  },
};

/** Lines of a file that are in the sample or not as a whole. Longer spans would miss fewer mutants of whole blocks. */
const SPAN = 15;
/** Of a line with code, in runs of 629 and 340 mutants. */
const MUTANTS_PER_LINE = 1.2;

const { values } = parseArgs({
  options: {
    part: { type: 'string', default: 'core' },
    mutants: { type: 'string', default: '400' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    help: { type: 'boolean', default: false },
  },
});
const part = PARTS[values.part];
if (values.help || part === undefined) {
  console.log(`npm run mutants -- [--part ${Object.keys(PARTS).join('|')}] [--mutants 400] [--seed N]`);
  process.exit(values.help ? 0 : 2);
}

const sample = await drawn(part.sources, Number(values.mutants), chanceOf(Number(values.seed)));
console.log(`seed ${values.seed}: ${String(sample.length)} spans of ${part.sources}`);
process.env['MUTANTS_TESTS'] = part.tests.join(',');
process.env['POSTGRES_VERSION'] = '17';
const results = await new Stryker({
  testRunner: 'vitest',
  plugins: ['@stryker-mutator/vitest-runner', path.join(root, 'scripts', 'mutants-reporter.ts')],
  vitest: { configFile: 'vitest.mutants.config.ts', related: false },
  coverageAnalysis: 'perTest',
  // Runs for each mutant would have to load every file anew.
  ignoreStatic: true,
  concurrency: 2,
  mutate: sample,
  reporters: ['progress-append-only', 'survivors'],
  ignorePatterns: ['docs/.vitepress', 'docs/reference/api', 'dist', 'examples', 'findings'],
  tempDirName: path.join('node_modules', '.mutants'),
  timeoutMS: 30_000,
  dryRunTimeoutMinutes: 30,
}).runMutationTest();
process.exitCode = report(results) < part.floor ? 1 : 0;

/** Spans with about so many mutants. */
async function drawn(folder: string, mutants: number, chance: Chance): Promise<string[]> {
  const names = (await readdir(path.join(root, folder), { recursive: true })).filter((name) => name.endsWith('.ts'));
  const spans: { range: string; lines: number }[] = [];
  for (const name of names.sort()) {
    const file = path.join(folder, name);
    const lines = (await readFile(path.join(root, file), 'utf8')).split('\n');
    for (let start = 0; start < lines.length; start += SPAN) {
      const within = lines.slice(start, start + SPAN);
      const code = within.filter((line) => /[({=]/.test(line) && !/^\s*(\/?\*|\/\/|import|export \{)/.test(line));
      spans.push({ range: `${file}:${String(start + 1)}-${String(start + within.length)}`, lines: code.length });
    }
  }
  const sample: string[] = [];
  for (let left = mutants; left > 0 && spans.length > 0;) {
    const [span] = spans.splice(chance.between(0, spans.length - 1), 1);
    if (span === undefined || span.lines === 0) continue;
    sample.push(span.range);
    left -= span.lines * MUTANTS_PER_LINE;
  }
  return sample;
}

/** @returns how many of a hundred mutants were killed. */
function report(mutants: readonly Tested[]): number {
  const killed = mutants.filter(({ status }) => status === 'Killed' || status === 'Timeout').length;
  const all = killed + mutants.filter(isAlive).length;
  const score = (100 * killed) / all;
  console.log(
    `${String(killed)} of ${String(all)} mutants were killed: ${score.toFixed(1)} %, wanted ${String(part?.floor)} %. Repeat it with --seed ${values.seed}`,
  );
  return score;
}

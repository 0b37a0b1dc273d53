import { execFile, fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import Table from 'cli-table3';
import pg from 'pg';
import type { EmbeddedPostgres } from '../test/support/embedded-postgres.js';
import type { Answer, MeasureName, SideConfig, Start } from './against-side.js';
import { compared, type Pairs } from './ratios.js';
import { median } from './report.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));

/** What is measured, in this order. */
const MEASURES = [
  { name: 'store/tps', unit: 'transactions/s', better: 'higher' },
  { name: 'latency/p50', unit: 'ms', better: 'lower' },
  { name: 'drain/1000', unit: 'messages/s', better: 'higher' },
  { name: 'drain/100', unit: 'messages/s', better: 'higher' },
] as const satisfies readonly (Pick<Pairs, 'unit' | 'better'> & { name: MeasureName })[];

export interface AgainstOptions {
  readonly commit: string;
  readonly pairs: number;
  readonly messages: number;
}

/** How often each side of a pair is measured. The value of the side is the median. */
const ROUNDS = 3;

type SideName = 'ours' | 'theirs';

/**
 * Builds another commit beside this one, and measures both in turn on one server: each in a process of its own, which
 * loads that build by what it exports, and in databases of its own. Which one begins changes with every pair and round.
 * Each pair has two new processes, because a process keeps for its whole life what it happened to compile and where its
 * heap lies: of two processes with the same code, one drained slower than the other in seven of seven pairs, by 1 to 5 %.
 *
 * @returns whether something is worse by more than 3 % beyond the spread.
 */
export async function against(
  server: EmbeddedPostgres,
  { commit, pairs, messages }: AgainstOptions,
  signal: AbortSignal,
): Promise<boolean> {
  const folder = await mkdtemp(path.join(tmpdir(), 'messenger-against-'));
  try {
    await build(commit, folder, signal);
    const ours = await Side.of(server, { name: 'ours', build: root, messages });
    const theirs = await Side.of(server, { name: 'theirs', build: folder, messages });
    return report(await measured(server, [ours, theirs], pairs), commit);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The commit as its own `npm run build` makes it; with the packages of this one where they are the same. */
async function build(commit: string, folder: string, signal: AbortSignal): Promise<void> {
  const { stdout } = await run('git', ['rev-parse', '--verify', '--end-of-options', `${commit}^{commit}`], {
    cwd: root,
  }).catch((cause: unknown) => {
    throw new Error(`--against must name a commit of this repository, got ${commit}`, { cause });
  });
  const archive = path.join(folder, 'source.tar');
  await run('git', ['archive', '-o', archive, stdout.trim()], { cwd: root, signal });
  await run('tar', ['-xf', archive, '-C', folder], { signal });
  const lock = (of: string) => readFile(path.join(of, 'package-lock.json'), 'utf8');
  if ((await lock(folder)) === (await lock(root))) {
    await symlink(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  } else {
    console.log(`npm ci for ${commit}, which has other packages …`);
    await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: folder, signal });
  }
  console.log(`building ${commit} …`);
  await run('npm', ['run', 'build'], { cwd: folder, signal });
}

async function measured(server: EmbeddedPostgres, sides: readonly Side[], pairs: number): Promise<Pairs[]> {
  const figures = MEASURES.map((measure) => ({ ...measure, ours: [] as number[], theirs: [] as number[] }));
  const client = new pg.Client({ connectionString: server.url() });
  await client.connect();
  for (let pair = 1; pair <= pairs; pair++) {
    const inTurn = pair % 2 === 0 ? sides : sides.toReversed();
    try {
      for (const side of inTurn) await side.start();
      for (const figure of figures) {
        const values = { ours: [] as number[], theirs: [] as number[] };
        // The first round is a warm-up: a process that has run for a while has compiled what it runs.
        for (let round = 0; round <= ROUNDS; round++) {
          for (const side of round % 2 === 0 ? inTurn : inTurn.toReversed()) {
            // What the other has left to be written would be written while this one is measured.
            await client.query('CHECKPOINT');
            const value = await side.measure(figure.name);
            if (round > 0) values[side.name].push(value);
          }
        }
        const ours = median(values.ours);
        const theirs = median(values.theirs);
        console.log(`  ${figure.name} pair ${String(pair)}: ${shown(ours)} ${figure.unit}, theirs ${shown(theirs)}`);
        figure.ours.push(ours);
        figure.theirs.push(theirs);
      }
    } finally {
      for (const side of sides) side.stop();
    }
  }
  await client.end();
  return figures;
}

function report(figures: readonly Pairs[], commit: string): boolean {
  const table = new Table({
    head: ['name', 'this', commit, 'ratio', 'quartiles', 'least–most', 'unit', 'verdict'],
    style: { head: [], border: [] },
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'left', 'left'],
  });
  let isWorse = false;
  for (const figure of figures) {
    const { ours, theirs, median, least, most, quartiles, isWorse: worse } = compared(figure);
    isWorse ||= worse;
    table.push([
      figure.name,
      shown(ours),
      shown(theirs),
      median.toFixed(3),
      quartiles.map((each) => each.toFixed(3)).join('–'),
      `${least.toFixed(3)}–${most.toFixed(3)}`,
      `${figure.unit}, ${figure.better} is better`,
      worse ? 'worse by more than 3 % beyond the spread' : 'not worse',
    ]);
  }
  console.log(table.toString());
  console.log(
    `medians of ${String(figures[0]?.ours.length)} pairs, each of two new processes and the medians of ${String(ROUNDS)} rounds; a ratio is that of one pair, this commit's value by the other's`,
  );
  return isWorse;
}

function shown(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}

/** One of the two commits, with its databases, and the process that has loaded its build at the moment. */
class Side {
  readonly name: SideName;
  readonly #config: SideConfig;
  #child: ChildProcess | undefined;

  private constructor(name: SideName, config: SideConfig) {
    this.name = name;
    this.#config = config;
  }

  /** Makes its databases, and stores what is drained. */
  static async of(
    server: EmbeddedPostgres,
    { name, build, messages }: Omit<SideConfig, 'urls'> & { name: SideName },
  ): Promise<Side> {
    const urls = {
      store: await server.createDatabase(`${name}_store`),
      latency: await server.createDatabase(`${name}_latency`),
      drain: await server.createDatabase(`${name}_drain`),
    };
    console.log(`${name}: storing ${messages.toLocaleString('en')} messages …`);
    const side = new Side(name, { build, messages, urls });
    try {
      await side.start({ fills: true });
    } finally {
      side.stop();
    }
    return side;
  }

  async start({ fills = false } = {}): Promise<void> {
    const config: SideConfig & Start = { ...this.#config, fills };
    this.#child = fork(fileURLToPath(new URL('against-side.ts', import.meta.url)), [JSON.stringify(config)]);
    await this.#answer();
  }

  async measure(name: MeasureName): Promise<number> {
    this.#child?.send(name);
    return this.#answer();
  }

  /** It ends by itself, too, when this process is gone. */
  stop(): void {
    if (this.#child?.connected === true) this.#child.disconnect();
    this.#child = undefined;
  }

  async #answer(): Promise<number> {
    if (this.#child === undefined) throw new Error(`the process of ${this.name} is not started`);
    const ended = new AbortController();
    try {
      const answer = await Promise.race([
        once(this.#child, 'message', { signal: ended.signal }),
        once(this.#child, 'exit', { signal: ended.signal }),
      ]);
      const [first] = answer as [Answer | number | null];
      if (typeof first === 'object' && first !== null) return first.value;
      throw new Error(`the process of ${this.name} has ended with ${String(first)}: see above`);
    } finally {
      ended.abort();
    }
  }
}

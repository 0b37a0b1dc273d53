import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll } from 'vitest';

export const root = fileURLToPath(new URL('../..', import.meta.url));

const docs = path.join(root, 'docs');
const files = existsSync(docs) ? readdirSync(docs, { recursive: true, encoding: 'utf8' }) : [];
/** Without what scripts/api-docs.ts writes. */
const guides = files.filter(
  (file) => file.endsWith('.md') && !file.startsWith(path.join('reference', 'api') + path.sep),
);

/** The README, how to contribute, and the pages of the documentation, by their path. */
export const pages = new Map(
  await Promise.all(
    ['README.md', 'CONTRIBUTING.md', ...guides.map((file) => path.join('docs', file))].map(
      async (file) => [file, await readFile(path.join(root, file), 'utf8')] as const,
    ),
  ),
);

/** The programs on the pages, by the name in the comment before each. A name stands for one text. */
export const samples = new Map<string, string>();
for (const [page, text] of pages) {
  for (const [, name = '', code = ''] of text.matchAll(/<!-- sample: ([\w-]+) -->\s+```ts\n([\s\S]*?)```/g)) {
    if ((samples.get(name) ?? code) !== code) throw new Error(`${page} has another sample ${name}`);
    samples.set(name, code);
  }
}

export interface Sample {
  readonly child: ChildProcess;
  /** The exit code. */
  readonly ended: Promise<number | null>;
  output(): string;
  /** Resolves when the text has been printed; rejects when the process ends without it. */
  printed(text: string): Promise<void>;
}

/** To be called once in a test file: gives what runs a sample as it is printed, and ends what runs after the tests. */
export function sampleRunner(): (name: string, env: Record<string, string>, setup?: string) => Promise<Sample> {
  let folder: string;
  const children: ChildProcess[] = [];
  beforeAll(async () => {
    // Inside the repository, so that the package's own names and its clients resolve.
    folder = await mkdtemp(path.join(root, '.readme-'));
  });
  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  });
  return async (name, env, setup) => {
    const code = samples.get(name);
    if (code === undefined) throw new Error(`no page has a sample ${name}`);
    const file = path.join(folder, `${name}.ts`);
    await writeFile(file, code);
    const before = setup === undefined ? [] : ['--import', path.join(folder, `${name}-setup.mjs`)];
    if (setup !== undefined) await writeFile(path.join(folder, `${name}-setup.mjs`), setup);
    const child = spawn(process.execPath, ['--import', 'tsx', ...before, file], {
      cwd: root,
      env: { ...process.env, ...env },
    });
    children.push(child);
    let output = '';
    const seen: (() => void)[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data: Buffer) => {
        output += data.toString();
        for (const look of seen) look();
      });
    }
    const ended = once(child, 'close').then(([code]) => code as number | null);
    return {
      child,
      ended,
      output: () => output,
      /** Resolves when the text has been printed; rejects when the process ends without it. */
      printed: (text: string) =>
        new Promise<void>((resolve, reject) => {
          const look = () => {
            if (output.includes(text)) resolve();
          };
          seen.push(look);
          look();
          void ended.then((code) => {
            reject(new Error(`ended with ${String(code)}, without ${text}:\n${output}`));
          });
        }),
    };
  };
}

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import manifest from '../../package.json' with { type: 'json' };

const repository = fileURLToPath(new URL('../../', import.meta.url));
const modules = path.join(repository, 'node_modules');

/** Without what `npm test` and Vitest put into it: the copy is nobody's workspace, and no worker of this run. */
export const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm|VITEST|TEST$|NODE_ENV)/.test(name)),
);

/** A command in a folder; resolves to all that it printed. @throws Error with that in it, when the command fails. */
export async function command(cwd: string, [program, ...args]: readonly string[], env = {}): Promise<string> {
  // Ended before the test that waits for it is: a runner with a relay left open would stay for ever.
  const options = { cwd, env: { ...environment, ...env }, maxBuffer: 1 << 26, timeout: 55_000 };
  try {
    const { stdout, stderr } = await promisify(execFile)(program ?? '', args, options);
    return stdout + stderr;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${args.join(' ')} failed:\n${stdout}${stderr}`, { cause: error });
  }
}

/** The script of a package of this repository, such as `typescript/bin/tsc`, as a command. */
export const program = (name: string): string[] => [process.execPath, path.join(modules, name)];

interface Application {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

/**
 * A copy of an example in a temporary folder, with what its package.json names in node_modules, and nothing else:
 * this package as it is packed, built for this copy alone, so that no other test is in the way; and of the others
 * those of this repository.
 *
 * @returns the folder, and what removes it.
 */
export async function installed(example: string): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'installed-'));
  await cp(path.join(repository, 'examples', example), folder, { recursive: true });
  const application = JSON.parse(await readFile(path.join(folder, 'package.json'), 'utf8')) as Application;
  const own = path.join(folder, 'node_modules', manifest.name);
  const dist = path.join(own, 'dist');
  await mkdir(own, { recursive: true });
  await command(repository, [...program('typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', dist]);
  await command(repository, [process.execPath, '--import', 'tsx', 'scripts/build-cjs.ts', dist]);
  for (const name of ['package.json', 'migrations']) {
    await cp(path.join(repository, name), path.join(own, name), { recursive: true });
  }
  for (const name of Object.keys({ ...application.dependencies, ...application.devDependencies })) {
    if (name === manifest.name) continue;
    const link = path.join(folder, 'node_modules', name);
    await mkdir(path.dirname(link), { recursive: true });
    await symlink(path.join(modules, name), link);
  }
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

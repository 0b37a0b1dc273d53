/** The package as somebody gets it: built, packed, and installed somewhere else. */
import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import manifest from '../package.json' with { type: 'json' };

const repository = fileURLToPath(new URL('../', import.meta.url));

/** Runs a command and returns what it prints. @throws Error when it fails. */
export function run(cwd: string, command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
}

/**
 * Builds and packs the package into a folder, or copies the tarball that the environment variable `PACKED` names.
 *
 * @returns the tarball, as one names it there to install it.
 */
export function packInto(folder: string): string {
  const name = `${manifest.name}-${manifest.version}.tgz`;
  const packed = process.env['PACKED'];
  if (packed !== undefined) {
    copyFileSync(packed, join(folder, name));
  } else {
    run(repository, 'npm', 'run', 'build');
    run(repository, 'npm', 'pack', '--loglevel=error', '--ignore-scripts', '--pack-destination', folder);
  }
  return `./${name}`;
}

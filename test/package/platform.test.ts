/** Node and PostgreSQL, which npm brings for the machine at hand. */
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import platform from '../../platform/package.json' with { type: 'json' };

const versions: Readonly<Record<string, string>> = platform.optionalDependencies;

interface Lock {
  readonly packages: Readonly<Record<string, Readonly<Record<'os' | 'cpu', string | readonly string[]>>>>;
}

test('the scripts run on the Node that npm brought', () => {
  expect(Object.values(versions)).toContain(process.versions.node);
});

test.each(['linux-x64', 'linux-arm64', 'darwin-arm64', 'darwin-x64'])(
  'the lock file has Node and three versions of PostgreSQL for %s',
  async (machine) => {
    const lock = JSON.parse(await readFile(new URL('../../package-lock.json', import.meta.url), 'utf8')) as Lock;
    const own = Object.keys(versions).filter((name) => name.endsWith(machine));
    expect(own.map((name) => name.split('-')[0])).toEqual(['node', expect.stringMatching(/^pg1[45]$/), 'pg17', 'pg18']);
    for (const name of own) {
      const locked = lock.packages[`node_modules/${name}`]!;
      expect(locked, name).toMatchObject({ integrity: expect.any(String) as string, optional: true });
      expect([locked.os, locked.cpu].flat().join('-'), name).toBe(machine);
    }
  },
);

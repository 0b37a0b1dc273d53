/**
 * Compiles and runs a program for each library in scripts/versions, against the packed package and a real PostgreSQL:
 * with the oldest versions that are supported, with former ones, and with the newest; and those in scripts/versions/next
 * with what is about to be released. Each program makes a mistake that must not compile. It downloads the libraries,
 * into a temporary folder.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import manifest from '../package.json' with { type: 'json' };
import { startPostgres } from '../test/support/embedded-postgres.js';
import { startNeonProxy } from '../test/support/neon-proxy.js';
import { packInto, run } from './pack.js';

const NEWEST = {
  '@electric-sql/pglite': '0.5.16',
  '@mikro-orm/core': '7.2.5',
  '@mikro-orm/postgresql': '7.2.5',
  '@neondatabase/serverless': '1.2.0',
  '@nestjs/common': '12.5.1',
  '@nestjs/core': '12.5.1',
  '@prisma/adapter-pg': '7.10.0',
  '@prisma/client': '7.10.0',
  '@types/pg': '8.23.1',
  'drizzle-orm': '0.45.4',
  knex: '3.3.0',
  kysely: '0.29.9',
  pg: '8.23.1',
  postgres: '3.4.9',
  sequelize: '6.37.8',
  typeorm: '1.1.1',
} as const;

/** What is supported: the table of the README says the same. */
const VERSIONS = {
  oldest: {
    '@electric-sql/pglite': '0.2.0',
    '@mikro-orm/core': '6.1.0',
    '@mikro-orm/postgresql': '6.1.0',
    '@neondatabase/serverless': '1.0.0',
    '@nestjs/common': '10.0.0',
    '@nestjs/core': '10.0.0',
    '@prisma/adapter-pg': '7.0.0',
    '@prisma/client': '7.0.0',
    '@types/pg': '8.11.0',
    'drizzle-orm': '0.29.0',
    knex: '1.0.0',
    kysely: '0.26.0',
    pg: '8.11.0',
    postgres: '3.4.0',
    sequelize: '6.21.0',
    typeorm: '0.3.7',
  },
  /** Of those that came to be another library since, and whose newest the tests run on: the last as they were. */
  former: { ...NEWEST, '@mikro-orm/core': '6.6.7', '@mikro-orm/postgresql': '6.6.7', kysely: '0.28.18' },
  newest: NEWEST,
  next: {
    '@sequelize/core': '7.0.0-alpha.48',
    '@sequelize/postgres': '7.0.0-alpha.48',
    '@types/pg': '8.23.1',
    'drizzle-orm': '1.0.0-rc.5',
    pg: '8.23.1',
  },
} as const;

/** A client that Prisma 7.9 has generated does not run on the packages of 7.0; to generate one downloads an engine. */
const COMPILED_ONLY = ['oldest/prisma'];

/** What the programs need beside: the versions do not matter. */
const BESIDE = ['@types/node', '@types/ws', 'reflect-metadata', 'rxjs', 'ws'] as const;

const COMPILER_OPTIONS = {
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  target: 'ES2022',
  lib: ['ES2023'],
  module: 'NodeNext',
  types: ['node'],
  rootDir: '.',
  outDir: 'out',
};

const repository = fileURLToPath(new URL('../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'versions-'));
/** Where the programs for these versions are. */
const programsFor = (name: string) => join('scripts/versions', name === 'next' ? 'next' : '');

function programsIn(path: string): string[] {
  const files = readdirSync(join(repository, path)).filter((file) => file.endsWith('.ts'));
  return files.map((file) => basename(file, '.ts')).filter((name) => name !== 'round-trip');
}

/** A project with the packed package, the programs, and these versions. */
function project(name: string, tarball: string, versions: Readonly<Record<string, string>>): string {
  const cwd = join(folder, name);
  mkdirSync(cwd);
  const beside = Object.fromEntries(BESIDE.map((each) => [each, manifest.devDependencies[each]]));
  const dependencies = { ...versions, ...beside, [manifest.name]: `file:${join(folder, tarball)}` };
  writeFileSync(join(cwd, 'package.json'), JSON.stringify({ private: true, type: 'module', dependencies }));
  writeFileSync(
    join(cwd, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include: ['scripts'] }),
  );
  const programs = programsIn(programsFor(name)).map((program) => join(programsFor(name), `${program}.ts`));
  for (const source of [...programs, 'scripts/versions/round-trip.ts', 'examples/prisma/generated']) {
    cpSync(join(repository, source), join(cwd, source), { recursive: true });
  }
  // What a library wants beside itself is named above, in versions of which some are newer than it knows.
  run(cwd, 'npm', 'install', '--legacy-peer-deps', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error');
  return cwd;
}

const problems: string[] = [];
const server = await startPostgres(17);
try {
  const tarball = packInto(folder);
  for (const [name, versions] of Object.entries(VERSIONS)) {
    const cwd = project(name, tarball, versions);
    const tsc = spawn(process.execPath, [join(repository, 'node_modules/typescript/bin/tsc')], {
      cwd,
      stdio: 'inherit',
    });
    const [compiled] = (await once(tsc, 'close')) as [number | null];
    console.log(`${name}: types ${compiled === 0 ? 'ok' : 'FAILED'}`);
    if (compiled !== 0) problems.push(`${name}: the types`);
    for (const program of programsIn(programsFor(name))) {
      if (COMPILED_ONLY.includes(`${name}/${program}`)) continue;
      const url = await server.createDatabase(`${name}_${program}`);
      const proxy = await startNeonProxy(url);
      const env = { ...process.env, DATABASE_URL: url, NEON_PROXY: proxy.webSocket };
      const file = join('out', programsFor(name), `${program}.js`);
      const child = spawn(process.execPath, [file], { cwd, env, stdio: ['ignore', 'ignore', 'inherit'] });
      const [code] = (await once(child, 'close')) as [number | null];
      await proxy.close();
      console.log(`${name}: ${program} ${code === 0 ? 'ok' : 'FAILED'}`);
      if (code !== 0) problems.push(`${name}: ${program}`);
    }
  }
} finally {
  await server.remove();
  rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(`FAILED ${problem}`);
if (problems.length > 0) process.exit(1);

/** What `npm pack` makes, as somebody gets it who has nothing else installed. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { bundle, sizes, specifier, subpaths } from '../../scripts/bundle.js';
import { consumer, problemsOf, type Report } from '../../scripts/consumer.js';

const repository = fileURLToPath(new URL('../../', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'package-'));
const project = join(folder, 'project');
const installed = join(project, 'node_modules', manifest.name);
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Outcome {
  readonly code: number;
  readonly output: string;
}

/** Without what `npm test` puts into the environment: the project is nobody's workspace. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm|VITEST|NODE_ENV)/.test(name)),
);

function run(cwd: string, command: string, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, env: environment, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : 1, output: `${stdout}${stderr}` });
    });
  });
}

async function must(cwd: string, command: string, ...args: string[]): Promise<string> {
  const { code, output } = await run(cwd, command, ...args);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${output}`);
  return output;
}

/** `npm pack` of a folder; the path of the tarball. */
async function pack(source: string, ...flags: string[]): Promise<string> {
  const output = await must(source, 'npm', 'pack', '--loglevel=error', ...flags, '--pack-destination', folder);
  const tarball = output.trimEnd().split('\n').at(-1);
  if (tarball?.endsWith('.tgz') !== true) throw new Error(`npm pack of ${source} names no file: ${output}`);
  return join(folder, tarball);
}

/** What is packed of a clone in which nothing has been built: `npm pack` does it. */
async function packClone(): Promise<string> {
  const clone = join(folder, 'a clone');
  await mkdir(clone);
  const built = ['package.json', 'tsconfig.json', 'tsconfig.build.json', 'src', 'scripts', 'migrations'];
  for (const name of [...built, 'README.md', 'CHANGELOG.md', 'LICENSE']) {
    await cp(join(repository, name), join(clone, name), { recursive: true });
  }
  await symlink(join(repository, 'node_modules'), join(clone, 'node_modules'));
  return pack(clone);
}

beforeAll(async () => {
  const tarball = await packClone();
  // The command line's dependency comes from a file too, so that nothing here needs a registry.
  const commander = await pack(join(repository, 'node_modules/commander'), '--ignore-scripts');
  await mkdir(project);
  const name = 'project';
  const overrides = { commander: `file:${commander}` };
  await writeFile(join(project, 'package.json'), JSON.stringify({ name, private: true, type: 'module', overrides }));
  await must(project, 'npm', 'install', '--offline', '--no-audit', '--no-fund', tarball);
});

/** Every module that an entry of the package leads to: its own files, and the names of all others. */
async function importGraph(entry: string): Promise<{ files: string[]; others: string[] }> {
  const files = new Set<string>();
  const others = new Set<string>();
  const queue = [join(installed, entry)];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (files.has(file)) continue;
    files.add(file);
    const { importedFiles } = ts.preProcessFile(await readFile(file, 'utf8'), true, true);
    for (const { fileName } of importedFiles) {
      if (fileName.startsWith('.')) queue.push(join(dirname(file), fileName));
      else others.add(fileName);
    }
  }
  return { files: [...files].map((file) => relative(installed, file)).sort(), others: [...others].sort() };
}

/** A project with this package and the named packages only. */
async function projectWith(clients: readonly string[]): Promise<string> {
  const cwd = await mkdtemp(join(folder, 'with-'));
  await cp(installed, join(cwd, 'node_modules', manifest.name), { recursive: true });
  for (const client of clients) {
    const link = join(cwd, 'node_modules', client);
    await mkdir(dirname(link), { recursive: true });
    await symlink(join(repository, 'node_modules', client), link);
  }
  return cwd;
}

/** How an application is compiled: its files, and what TypeScript is told. */
interface Compiled {
  readonly files: readonly string[];
  readonly flags: readonly string[];
}
const asModules: Compiled = { files: ['main.mts', 'main.cts'], flags: ['--module', 'nodenext'] };
/** As Nest's template has it, and CommonJS of old: TypeScript does not know `exports` then. */
const asOldCommonJs: Compiled = {
  files: ['main.ts'],
  flags: ['--module', 'commonjs', '--moduleResolution', 'node10', '--target', 'es2022'],
};

/**
 * Type-checks a text in a project with this package and the named packages only, library files
 * included, as an ES module and as a CommonJS one. PGlite's own declarations do not pass (they ask for
 * Emscripten's); every other error counts.
 */
async function typeErrors(
  text: string,
  clients: readonly string[],
  { files, flags }: Compiled = asModules,
): Promise<string[]> {
  const cwd = await projectWith(clients);
  for (const file of files) await writeFile(join(cwd, file), text);
  const tsc = join(repository, 'node_modules/typescript/bin/tsc');
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--skipLibCheck', 'false'];
  const { code, output } = await run(cwd, process.execPath, tsc, '--noEmit', ...flags, ...strict, ...files);
  const errors = output.split('\n').filter((line) => /error TS\d+/.test(line));
  if (code !== 0 && errors.length === 0) throw new Error(`tsc said nothing that is understood: ${output}`);
  return errors.filter((line) => !line.includes('/node_modules/@electric-sql/pglite/'));
}

describe('the packed package', () => {
  test('installs alone: the command line’s one dependency beside it, no peer', async () => {
    const packages = (await readdir(join(project, 'node_modules'))).filter((name) => !name.startsWith('.'));
    expect(packages.sort()).toEqual(['commander', manifest.name].sort());
  });

  test('is built first, and holds what is run and read, and nothing else', async () => {
    const entries = await readdir(installed);
    expect(entries.sort()).toEqual(
      ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'migrations', 'package.json'].sort(),
    );
    expect(await readdir(join(installed, 'dist/cli'))).toContain('main.js');
    expect(await readdir(join(installed, 'dist/cjs'))).toContain('index.js');
    expect((await readdir(join(installed, 'migrations/postgres'))).filter((name) => name.endsWith('.sql'))).not.toEqual(
      [],
    );
  });

  describe.each(['dist', 'dist/cjs'])('%s', (dist) => {
    test.each(['index.js', 'adapter.js', 'testing/index.js', 'testing/conformance/index.js'])(
      '%s leads to files of the package only',
      async (entry) => {
        const { files, others } = await importGraph(join(dist, entry));
        expect(others).toEqual([]);
        expect(files.length).toBeGreaterThan(1);
        const own = ['index.js', 'adapter.js', 'core/', 'testing/'].map((path) => `${dist}/${path}`);
        expect(files.filter((file) => !own.some((path) => file.startsWith(path)))).toEqual([]);
      },
    );

    test.each(['stores/memory/index.js', 'stores/postgres/index.js', 'brokers/mux.js', 'inbox/index.js'])(
      '%s needs no package: clients are taken, not imported',
      async (entry) => {
        const { others } = await importGraph(join(dist, entry));
        expect(others.filter((name) => !name.startsWith('node:'))).toEqual([]);
      },
    );
  });

  test('the graph above sees a dependency where there is one', async () => {
    expect((await importGraph('dist/cli/main.js')).others).toContain('commander');
  });

  test('root and testing import with plain node', async () => {
    const text = `
      import * as root from '${manifest.name}';
      import * as testing from '${manifest.name}/testing';
      const message = root.newMessage('hello');
      console.log(JSON.stringify([message.payload.byteLength, typeof root.Messenger, Object.keys(testing).length > 0]));
    `;
    await writeFile(join(project, 'main.js'), text);
    expect(JSON.parse(await must(project, process.execPath, 'main.js'))).toEqual([5, 'function', true]);
  });

  test('no other path of it can be imported', async () => {
    const { code, output } = await run(project, process.execPath, '-e', `import('${manifest.name}/dist/index.js')`);
    expect(code).toBe(1);
    expect(output).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
  });

  test('the command line starts, and finds the migrations', async () => {
    expect(await must(project, 'npx', '--no-install', 'messenger', '--help')).toContain('migrate');
    expect(await must(project, 'npx', '--no-install', 'messenger', 'migrate', '--sql')).toContain('CREATE TABLE');
  });
});

const AWS = ['@aws-sdk/client-sns', '@aws-sdk/client-sqs'];
const NEST = ['@nestjs/core', '@nestjs/common', 'reflect-metadata', 'rxjs'];

describe('the packed package, required and imported', () => {
  test.each([
    ['as Node does', []],
    // Jest cannot either: nothing that is required may be left to it.
    ['where Node cannot require an ES module', ['--no-experimental-require-module']],
  ])('gives the same, and works together, %s', async (_title, flags) => {
    const cwd = await projectWith([...AWS, ...NEST]);
    await writeFile(join(cwd, 'main.cjs'), consumer);
    const output = await must(cwd, process.execPath, ...flags, 'main.cjs');
    expect(problemsOf(JSON.parse(output) as Report)).toEqual([]);
  });

  test('what does not work is told', () => {
    const names = Object.fromEntries(
      subpaths.map((subpath) => [specifier(subpath), { required: [], imported: ['a'] }]),
    );
    const problems = problemsOf({ node: '20.19.0', names, migrations: false, mixed: ['stopped'] });
    expect(problems).toHaveLength(subpaths.length + 2);
  });

  test('require gives CommonJS, and import ES modules', async () => {
    const text = `
      import { createRequire } from 'node:module';
      const { resolve } = createRequire(import.meta.url);
      const files = ${JSON.stringify(subpaths.map(specifier))}.map((name) => [resolve(name), import.meta.resolve(name)]);
      console.log(JSON.stringify(files));
    `;
    await writeFile(join(project, 'resolve.js'), text);
    const files = JSON.parse(await must(project, process.execPath, 'resolve.js')) as [string, string][];
    expect(files).toHaveLength(subpaths.length);
    for (const [required, imported] of files) {
      expect(required).toContain(join('dist', 'cjs'));
      expect(imported).not.toContain('/dist/cjs/');
    }
  });
});

describe('an application’s bundle', () => {
  test('holds what is used: newMessage is a small part of the root', async () => {
    const rows = await sizes(project);
    const minified = (name: string) => rows.find((row) => row.name === name)!.minified;
    expect(rows).toHaveLength(subpaths.length + 1);
    expect(minified(manifest.name)).toBeGreaterThan(10_000);
    expect(minified('newMessage alone')).toBeLessThan(minified(manifest.name) / 5);
  });

  test('in CommonJS loads, of every subpath', async () => {
    const cwd = await projectWith([...AWS, ...NEST]);
    await rm(join(cwd, 'node_modules', manifest.name), { recursive: true });
    for (const [at, subpath] of subpaths.entries()) {
      const code = await bundle(`export * from '${specifier(subpath)}';`, { format: 'cjs', folder: project });
      await writeFile(join(cwd, `${String(at)}.cjs`), code);
    }
    const text = `console.log(JSON.stringify(${JSON.stringify([...subpaths.keys()])}.map((at) => Object.keys(require('./' + at + '.cjs')).length)))`;
    await writeFile(join(cwd, 'main.cjs'), text);
    const counts = JSON.parse(await must(cwd, process.execPath, 'main.cjs')) as number[];
    expect(counts).toHaveLength(subpaths.length);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  });
});

/** A type that is `any` passes every check: a name must be a class, and not `any`. */
const used = (subpath: string, ...names: string[]): string =>
  `import { ${names.join(', ')} } from '${manifest.name}${subpath}';\n` +
  names.map((name) => `known<typeof ${name}>(${name});\n`).join('');
const known = `declare function known<T>(value: 0 extends 1 & T ? never : T): void;\n`;

/** Subpaths that type-check together, and the packages that are there. */
const checks: readonly (readonly [title: string, clients: readonly string[], text: string])[] = [
  [
    'root, adapter, testing, memory, inbox and mux with nothing else',
    [],
    used('', 'Messenger', 'newMessage', 'PublishError') +
      used('/adapter', 'ACKNOWLEDGED', 'failureKind', 'uuidv7') +
      used('/testing/conformance', 'storeTestSuite', 'publisherTestSuite') +
      used('/memory', 'MemoryStore') +
      used('/mux', 'Mux') +
      used('/inbox', 'createInbox') +
      `import * as testing from '${manifest.name}/testing';\nknown<typeof testing>(testing);\n`,
  ],
  [
    'bridges of transactions with nothing else',
    [],
    used('/drizzle', 'drizzleBridge') +
      used('/kysely', 'kyselyBridge') +
      used('/prisma', 'prismaBridge') +
      used('/knex', 'knexBridge') +
      used('/typeorm', 'typeormBridge') +
      used('/mikro-orm', 'mikroOrmBridge') +
      used('/sequelize', 'sequelizeBridge'),
  ],
  [
    'frameworks with Node alone',
    ['@types/node'],
    used('/fastify', 'outboxPlugin') + used('/server', 'withRelay') + used('/serverless', 'drainHandler', 'drainTask'),
  ],
  ['nest with Nest', ['@types/node', ...NEST], used('/nest', 'OutboxModule', 'onMessageOf')],
  [
    'postgres with its clients',
    ['pg', '@types/pg', 'postgres', '@electric-sql/pglite'],
    `${used('/postgres', 'PostgresStore')}
      import pg from 'pg';
      import postgres from 'postgres';
      import { PGlite } from '@electric-sql/pglite';
      export const stores = [
        new PostgresStore(new pg.Pool()),
        new PostgresStore(postgres()),
        new PostgresStore(new PGlite()),
      ];`,
  ],
  [
    'sns with its client',
    ['@aws-sdk/client-sns', '@types/node'],
    `${used('/sns', 'SnsPublisher')}
      import { SNSClient } from '@aws-sdk/client-sns';
      export const publisher = new SnsPublisher(new SNSClient({}), { topic: 'arn:aws:sns:eu-west-1:1:t' });`,
  ],
  [
    'sqs with its client',
    ['@aws-sdk/client-sqs', '@types/node'],
    `${used('/sqs', 'SqsPublisher', 'SqsSubscriber')}
      import { SQSClient } from '@aws-sdk/client-sqs';
      export const publisher = new SqsPublisher(new SQSClient({}), { queue: 'q' });
      export const subscriber = new SqsSubscriber(new SQSClient({}), { queue: 'q' });`,
  ],
];

describe('the packed declarations, library files checked', () => {
  test.each(checks)('%s', async (_title, clients, text) => {
    expect(await typeErrors(known + text, clients)).toEqual([]);
  });

  test('a wrong use is an error', async () => {
    const errors = await typeErrors(`import { newMessage } from '${manifest.name}';\nnewMessage(1);\n`, []);
    expect(errors.sort()).toEqual([
      expect.stringContaining('main.cts(2,12): error TS2345'),
      expect.stringContaining('main.mts(2,12): error TS2345'),
    ]);
  });

  test('every subpath is found where TypeScript does not know exports: moduleResolution node10', async () => {
    const text = subpaths
      .map((subpath, at) => `import * as of${at} from '${specifier(subpath)}';\nknown<typeof of${at}>(of${at});\n`)
      .join('');
    const clients = ['@types/node', ...AWS, ...NEST];
    expect(await typeErrors(known + text, clients, asOldCommonJs)).toEqual([]);
    const wrong = `import { PostgresStore } from '${manifest.name}/postgres';\nnew PostgresStore('');\n`;
    expect(await typeErrors(wrong, clients, asOldCommonJs)).toEqual([
      expect.stringContaining('main.ts(2,19): error TS2345'),
    ]);
  });

  test('every subpath is checked', () => {
    const texts = checks.map(([, , text]) => text).join('');
    for (const subpath of subpaths) expect(texts).toContain(`from '${specifier(subpath)}'`);
  });
});

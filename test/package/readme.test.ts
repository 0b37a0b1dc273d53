/** What the README and CI say of this repository is what is in it. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };

const repository = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string) => readFile(join(repository, file), 'utf8');

/** As the README calls them, and the packages of each. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  Drizzle: ['drizzle-orm'],
  Kysely: ['kysely'],
  Knex: ['knex'],
  TypeORM: ['typeorm'],
  MikroORM: ['@mikro-orm/core', '@mikro-orm/postgresql'],
  Sequelize: ['sequelize'],
  '`pg`': ['pg', '@types/pg'],
  'postgres.js': ['postgres'],
  PGlite: ['@electric-sql/pglite'],
  Neon: ['@neondatabase/serverless'],
  Nest: ['@nestjs/common', '@nestjs/core'],
  Prisma: ['@prisma/adapter-pg', '@prisma/client'],
};

test('the oldest versions that are tried are those that scripts/check-versions.ts installs', async () => {
  const readme = await read('README.md');
  const [, typesAlone = ''] = /^For (Prisma [\d.]+), we check only the types\./m.exec(readme) ?? [];
  const list = [...readme.matchAll(/\[([^\]]+)\]\(docs\/guides\/[\w-]+\.md\) ([\d.]*\d)/g)];
  expect(list.map(([, name, version]) => `${String(name)} ${String(version)}`)).toContain(typesAlone);
  const said = list.flatMap(([, name = '', version = '']) =>
    (LIBRARIES[name] ?? [name]).map((each) => [each, [...version.split('.'), '0'].slice(0, 3).join('.')]),
  );
  const script = await read('scripts/check-versions.ts');
  const [, oldest = ''] = /\boldest: \{([^}]*)\}/.exec(script) ?? [];
  const tried = [...oldest.matchAll(/'?([@\w/-]+)'?: '([\d.]+)',/g)].map(([, name, version]) => [name, version]);
  expect(said.length).toBeGreaterThan(10);
  expect(Object.fromEntries(said)).toEqual(Object.fromEntries(tried));
  expect(script).toContain("const COMPILED_ONLY = ['oldest/prisma'];");
});

test('a framework is less than a hundred lines, in each of its files', async () => {
  const files = (await readdir(join(repository, 'src/frameworks'), { recursive: true })).filter(
    (file) => file.endsWith('.ts') && !file.startsWith('_shared'),
  );
  expect(files).toEqual(expect.arrayContaining(['fastify.ts', join('nest', 'on-message.ts')]));
  for (const file of files) {
    const lines = (await read(join('src/frameworks', file))).split('\n').length - 1;
    expect(lines, file).toBeLessThan(100);
  }
});

test('CI runs every check of package.json', async () => {
  const ci = await read('.ci/run');
  const steps = [...ci.matchAll(/^ *step \S+ npm run (\S+)$/gm)].map(([, name]) => name);
  expect(steps).toContain('check');
  const together = manifest.scripts.check.split(' && ').map((command) => command.replace('npm run ', ''));
  const checks = Object.keys(manifest.scripts).filter((name) => name.startsWith('check:'));
  expect([...steps, ...together]).toEqual(expect.arrayContaining(checks));
});

test('the links of the README lead somewhere', async () => {
  const links = [...(await read('README.md')).matchAll(/\]\(([\w./-]+)(?:#([\w-]+))?\)/g)];
  expect(links.length).toBeGreaterThan(40);
  for (const [link, file = '', heading] of links) {
    expect(existsSync(join(repository, file)), link).toBe(true);
    if (heading === undefined) continue;
    const headings = [...(await read(file)).matchAll(/^#+ (.*)$/gm)].map(([, text = '']) =>
      text
        .toLowerCase()
        .replaceAll(/[^\w -]/g, '')
        .replaceAll(' ', '-'),
    );
    expect(headings, link).toContain(heading);
  }
});

/**
 * Fails when the lists of the package's subpaths drift apart: `exports` and `typesVersions` in package.json, `paths` in
 * tsconfig.json, the adapters in src, and what the build wrote to dist.
 */
import { existsSync, readdirSync } from 'node:fs';
import manifest from '../package.json' with { type: 'json' };
import tsconfig from '../tsconfig.json' with { type: 'json' };

const problems: string[] = [];
const root = new URL('../', import.meta.url);
const exists = (path: string): boolean => existsSync(new URL(path, root));
const list = (folder: string) => (exists(folder) ? readdirSync(new URL(folder, root), { withFileTypes: true }) : []);

/** `./src/stores/memory/index.ts` is published as `./dist/stores/memory/index.js`, and in CommonJS in `./dist/cjs`. */
const built = (source: string, folder: string) => ({
  types: source.replace(/^\.\/src\//, folder).replace(/\.ts$/, '.d.ts'),
  default: source.replace(/^\.\/src\//, folder).replace(/\.ts$/, '.js'),
});

const paths = Object.entries(tsconfig.compilerOptions.paths).map(([name, files]) => ({
  subpath: name.replace(manifest.name, '.'),
  source: files[0] ?? '',
}));

const expected: Record<string, unknown> = { './package.json': './package.json' };
for (const { subpath, source } of paths) {
  const conditions = { import: built(source, './dist/'), require: built(source, './dist/cjs/') };
  expected[subpath] = conditions;
  for (const file of [source, ...Object.values(conditions).flatMap((files) => Object.values(files))]) {
    if (!exists(file)) problems.push(`${subpath}: ${file} does not exist`);
  }
}

const actual: Record<string, unknown> = manifest.exports;
for (const subpath of new Set([...Object.keys(expected), ...Object.keys(actual)])) {
  // As text: of conditions the first that matches is taken, so their order counts.
  if (JSON.stringify(actual[subpath]) === JSON.stringify(expected[subpath])) continue;
  problems.push(
    `${subpath}: package.json exports ${JSON.stringify(actual[subpath])}, ` +
      `tsconfig.json's paths ask for ${JSON.stringify(expected[subpath])}`,
  );
}

// One file, or one folder with an index, per adapter: each is a subpath. Those of one system of brokers stand in a folder.
const filesIn = (folder: string) =>
  list(`src/${folder}/`)
    .filter((entry) => entry.isFile())
    .map((entry) => `./src/${folder}/${entry.name}`);
const foldersIn = (folder: string) =>
  list(`src/${folder}/`)
    .filter((entry) => entry.isDirectory() && entry.name !== '_shared')
    .map((entry) => `${folder}/${entry.name}`);
const adapters = [
  ...foldersIn('stores').map((folder) => `./src/${folder}/index.ts`),
  ...['bridges', 'brokers', ...foldersIn('brokers'), 'frameworks'].flatMap(filesIn),
];
for (const adapter of adapters) {
  if (!paths.some(({ source }) => source === adapter)) {
    problems.push(`${adapter} is no subpath: add it to tsconfig.json's paths and package.json's exports`);
  }
}

// For what does not know `exports`, such as TypeScript with `moduleResolution: node10`: what `require` gets.
const main = built('./src/index.ts', './dist/cjs/').default;
if (manifest.main !== main) problems.push(`main: package.json has ${manifest.main}, not ${main}`);
const types = paths
  .filter(({ subpath }) => subpath !== '.')
  .map(({ subpath, source }) => [subpath.slice('./'.length), [built(source, './dist/cjs/').types]]);
if (JSON.stringify(manifest.typesVersions['*']) !== JSON.stringify(Object.fromEntries(types))) {
  problems.push(`typesVersions: tsconfig.json's paths ask for ${JSON.stringify(Object.fromEntries(types))}`);
}

for (const file of Object.values(manifest.bin)) {
  if (!exists(file)) problems.push(`bin: ${file} does not exist`);
}
for (const peer of Object.keys(manifest.peerDependencies)) {
  const meta: Record<string, { optional?: boolean }> = manifest.peerDependenciesMeta;
  if (meta[peer]?.optional !== true) problems.push(`peerDependencies: ${peer} must be optional`);
}

for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log(`${String(paths.length)} subpaths agree in package.json, tsconfig.json, src and dist`);

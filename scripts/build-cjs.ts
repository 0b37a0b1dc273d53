/**
 * Writes dist/cjs, the CommonJS twin of what `tsc` wrote to dist: for Jest, and for applications that `require`.
 * `build-cjs.ts FOLDER` does it for another folder than dist.
 *
 * tsc itself cannot: in CommonJS `import.meta` is an error to it. The sources are checked and declared by the
 * first build; here each file is translated by itself, and its declarations are copied, since next to a
 * package.json that says `commonjs` the same text declares a CommonJS module.
 */
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import tsconfig from '../tsconfig.json' with { type: 'json' };

const root = fileURLToPath(new URL('../', import.meta.url));
const esm = resolve(process.argv[2] ?? join(root, 'dist'));
const cjs = join(esm, 'cjs');

const { options } = ts.convertCompilerOptionsFromJson(
  {
    target: tsconfig.compilerOptions.target,
    module: 'CommonJS',
    sourceMap: true,
    inlineSources: true,
    isolatedModules: true,
  },
  root,
);

async function write(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

/** What stands for `import.meta.url`: the URL of the ESM twin, so that a path relative to it leads to the same file. */
function ownUrl(name: string): string {
  const twin = relative(dirname(join(cjs, name)), join(esm, name)).replaceAll(sep, '/');
  return `require('node:url').pathToFileURL(__dirname + '/${twin}').href`;
}

// The command line is run, never required.
const names = (await readdir(join(root, 'src'), { recursive: true }))
  .filter((file) => file.endsWith('.ts') && !file.startsWith(`cli${sep}`))
  .map((file) => file.slice(0, -'.ts'.length));

for (const name of names) {
  const source = join(root, 'src', `${name}.ts`);
  const { outputText, sourceMapText } = ts.transpileModule(await readFile(source, 'utf8'), {
    fileName: source,
    compilerOptions: options,
  });
  const output = outputText.replaceAll('import.meta.url', ownUrl(`${name}.js`));
  if (output.includes('import.meta')) throw new Error(`${source}: of import.meta only url exists in CommonJS`);
  await write(join(cjs, `${name}.js`), output);
  const map = JSON.parse(sourceMapText ?? '{}') as { sources?: string[] };
  map.sources = [relative(dirname(join(cjs, name)), source).replaceAll(sep, '/')];
  await write(join(cjs, `${name}.js.map`), JSON.stringify(map));
  await write(join(cjs, `${name}.d.ts`), await readFile(join(esm, `${name}.d.ts`), 'utf8'));
}

// `sideEffects` again: bundlers ask the nearest package.json.
await write(join(cjs, 'package.json'), `${JSON.stringify({ type: 'commonjs', sideEffects: false })}\n`);
console.log(`dist/cjs: ${String(names.length)} modules`);

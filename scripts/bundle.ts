/** What a bundler makes of the built package. */
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build, type Format } from 'esbuild';
import manifest from '../package.json' with { type: 'json' };

const root = fileURLToPath(new URL('../', import.meta.url));

/** The subpaths of code: all but `./package.json`. */
export const subpaths = Object.keys(manifest.exports).filter((subpath) => subpath !== './package.json');

/** `./postgres` as an application names it. */
export const specifier = (subpath: string): string => manifest.name + subpath.slice(1);

/**
 * A module of an application in `folder`, this repository by default, bundled with this package for Node and minified; peers
 * stay outside, as an application has them anyway.
 */
export async function bundle(
  text: string,
  { format = 'esm', folder = root }: { format?: Format; folder?: string } = {},
): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: text, resolveDir: folder },
    bundle: true,
    minify: true,
    write: false,
    platform: 'node',
    target: 'node20',
    format,
    external: Object.keys(manifest.peerDependencies),
    logLevel: 'error',
    // esbuild would follow `paths` to the sources.
    tsconfigRaw: {},
  });
  const [file] = outputFiles;
  if (file === undefined) throw new Error(`esbuild wrote nothing for ${text}`);
  return file.text;
}

export interface Size {
  readonly name: string;
  readonly minified: number;
  readonly gzipped: number;
}

async function sizeOf(name: string, text: string, folder: string): Promise<Size> {
  const code = await bundle(text, { folder });
  return { name, minified: Buffer.byteLength(code), gzipped: gzipSync(code).byteLength };
}

/** What each subpath costs an application in `folder` as a whole, and first what `newMessage` costs alone. */
export async function sizes(folder = root): Promise<Size[]> {
  const rows = [await sizeOf('newMessage alone', `export { newMessage } from '${manifest.name}';`, folder)];
  for (const subpath of subpaths) {
    rows.push(await sizeOf(specifier(subpath), `export * from '${specifier(subpath)}';`, folder));
  }
  return rows;
}

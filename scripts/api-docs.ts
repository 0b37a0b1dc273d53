/** Writes the API reference, docs/reference/api: a page for each subpath of the package. It is not committed. */
import { rm } from 'node:fs/promises';
import { Application, type TypeDocOptions } from 'typedoc';
import type { PluginOptions } from 'typedoc-plugin-markdown';
import tsconfig from '../tsconfig.json' with { type: 'json' };

const subpaths = new Map(
  Object.entries(tsconfig.compilerOptions.paths).map(([name, [file = '']]) => [
    file.replace(/^\.\/src\/(.+?)(?:(?<=.)\/index)?\.ts$/, '$1'),
    name,
  ]),
);

const options: TypeDocOptions & Partial<PluginOptions> = {
  plugin: ['typedoc-plugin-markdown'],
  tsconfig: 'tsconfig.build.json',
  entryPoints: Object.values(tsconfig.compilerOptions.paths).flat(),
  router: 'module',
  out: 'docs/reference/api',
  readme: 'none',
  entryFileName: 'index',
  hidePageHeader: true,
  hideBreadcrumbs: true,
  useCodeBlocks: true,
  expandObjects: true,
  parametersFormat: 'table',
  pageTitleTemplates: { index: 'API', module: '{name}' },
  sort: ['source-order'],
  excludeInternal: true,
  excludePrivate: true,
  excludeExternals: true,
  disableSources: true,
  // A type that only a signature names is shown there.
  validation: { notExported: false, invalidLink: true, notDocumented: false },
  treatWarningsAsErrors: true,
  logLevel: 'Warn',
};

const app = await Application.bootstrapWithPlugins(options);
const project = await app.convert();
if (project === undefined) throw new Error('the API reference could not be made: see above');
// A module is called as it is imported, not as its file.
for (const module of project.children ?? []) module.name = subpaths.get(module.name) ?? module.name;
app.validate(project);
await app.generateOutputs(project);
// docs/reference/api.md stands in its place.
await rm(`${options.out ?? ''}/index.md`);
if (app.logger.hasErrors() || app.logger.hasWarnings()) process.exitCode = 1;

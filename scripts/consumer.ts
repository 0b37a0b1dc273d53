/** A CommonJS application that has this package and its AWS clients in node_modules. */
import manifest from '../package.json' with { type: 'json' };
import { specifier, subpaths } from './bundle.js';

/** What the program prints, as JSON. */
export interface Report {
  /** The version of Node. */
  readonly node: string;
  /** By subpath, the names that `require` and `import` give. */
  readonly names: Readonly<Record<string, { readonly required: string[]; readonly imported: string[] }>>;
  /** Whether the migrations were found, the same ones, from both. */
  readonly migrations: boolean;
  /** The error's code that ends a relay of the one format when a store of the other loses its tables. */
  readonly mixed: readonly unknown[];
}

/** The names that an application gets from a module, whatever its format adds to them. */
const NAMES = `(module) => Object.keys(module).filter((name) => !['default', 'module.exports'].includes(name)).sort()`;

export const consumer = `
  const namesOf = ${NAMES};
  const both = async (name) => ({ required: require(name), imported: await import(name) });

  /** A store that loses its tables while a relay works: at the start, any error would end it. */
  const broken = ({ MemoryStore }, { MessengerError }) => {
    let calls = 0;
    const read = async () => {
      if (calls++ < 2) return { messages: [] };
      throw new MessengerError('SCHEMA_MISMATCH', 'the tables are gone');
    };
    const store = new MemoryStore();
    const openFeed = store.openFeed.bind(store);
    return Object.assign(store, { openFeed: async (options) => Object.assign(await openFeed(options), { read }) });
  };
  const ends = ({ Messenger }, store) =>
    new Messenger(store, { publish: () => Promise.resolve() }, { errorLogger: { error: () => {} }, interval: 50 })
      .start({ signal: AbortSignal.timeout(5_000) })
      .then(() => 'stopped', (error) => error.code);

  async function main() {
    const names = {};
    for (const name of ${JSON.stringify(subpaths.map(specifier))}) {
      const { required, imported } = await both(name);
      names[name] = { required: namesOf(required), imported: namesOf(imported) };
    }
    const postgres = await both('${manifest.name}/postgres');
    const scripts = [await postgres.required.migrationScript(), await postgres.imported.migrationScript()];
    const root = await both('${manifest.name}');
    const memory = await both('${manifest.name}/memory');
    console.log(JSON.stringify({
      node: process.versions.node,
      names,
      migrations: scripts[0].includes('CREATE TABLE') && scripts[0] === scripts[1],
      mixed: [
        await ends(root.required, broken(memory.imported, root.imported)),
        await ends(root.imported, broken(memory.required, root.required)),
      ],
    }));
  }
  main();
`;

/** What is wrong with a report; nothing when both formats of the package work. */
export function problemsOf({ names, migrations, mixed }: Report): string[] {
  const problems: string[] = [];
  for (const name of subpaths.map(specifier)) {
    const { required = [], imported = [] } = names[name] ?? {};
    if (imported.length === 0) problems.push(`${name}: nothing is imported`);
    if (required.join() !== imported.join()) {
      problems.push(`${name}: required ${required.join()}, imported ${imported.join()}`);
    }
  }
  if (!migrations) problems.push('the migrations are not found, or not the same ones, from both formats');
  for (const code of mixed) {
    if (code !== 'FATAL') problems.push(`a relay beside a store of the other format ended with ${String(code)}`);
  }
  return problems;
}

import { pages } from './sample-runner.js';

/** The shell lines on the pages, a text for each block of them. */
export const shellBlocks = [...pages].flatMap(([page, text]) =>
  [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, lines = '']) => ({ page, lines })),
);

/** The shell lines that have this in them, of one block: to be run by a test. */
export function shellLines(text: string): string {
  const found = shellBlocks.find(({ lines }) => lines.includes(text));
  if (found === undefined) throw new Error(`no page has shell lines with ${text}`);
  return found.lines;
}

/** The blocks that no test runs, by what is in them, and why. */
export const NOT_RUN: Readonly<Record<string, string>> = {
  'npm ci && npm run demo': 'it is how tests are run; .ci/run takes the same steps',
  'npm ci && npm test': 'it is how tests are run; .ci/run takes the same steps',
  'npm ci && npm run bench': '.ci/run takes the same steps, with fewer messages',
  'npm run bench -- --only': 'it takes many minutes; .ci/run takes the same steps, with fewer messages',
  'npm run bench -- --against':
    'it builds another commit and takes many minutes; test/bench tests how the two are compared',
  'npm install ':
    'it needs a registry; test/package packs the package and installs it, and check:versions the libraries',
  'pglite-server': 'it needs a registry, and goes on for ever; test/bridges runs on PGlite',
  'export DATABASE_URL=': 'it names a database of the reader; what follows it is run elsewhere on its page',
  'migrate --sql --no-transaction --from':
    'it is for a version to come; test/stores/postgres/migrate.test.ts has its number',
  '| psql': 'no psql comes with npm; test/stores/postgres applies the same SQL',
};

/** Blocks that only call `messenger`: test/docs/shell.test.ts runs each on a database. */
export const callsOfMessenger = shellBlocks.filter(
  ({ lines }) =>
    /^(?:\s*npx messenger [^|\n]*\n)+\s*$/.test(lines) && !Object.keys(NOT_RUN).some((part) => lines.includes(part)),
);

/**
 * The layers of the package, as a check that fails:
 *
 *     cli -> stores, brokers, bridges, frameworks, inbox -> core -> nothing
 *
 * and of the folders of core and of the PostgreSQL store: `within` says which imports which.
 *
 * `test/package/layers.test.ts` breaks each rule once and asserts that it is reported.
 */
const { peerDependencies } = require('./package.json');

/** A file `nest.ts` and a folder `nest/` are one adapter: `$1` is its name. */
const adapterOf = (kind) => `^src/${kind}/([^/]+?)(?:\\.ts$|/)`;
const same = (kind) => `^src/${kind}/$1(\\.ts$|/)`;

/** One adapter never imports another of its kind, but for what they share: each could move out of the package. */
const apart = (kind) => ({
  name: `${kind}-apart`,
  comment: `One of src/${kind} imports another of them.`,
  severity: 'error',
  from: { path: adapterOf(kind) },
  to: { path: `^src/${kind}/`, pathNot: [same(kind), `^src/${kind}/_shared/`] },
});

/** What a kind of adapter may import of this package, beside its own kind (see `apart`). */
const only = (kind, ...allowed) => ({
  name: `${kind}-layer`,
  comment: `src/${kind} imports only ${allowed.map((a) => `src/${a}`).join(', ')} of this package.`,
  severity: 'error',
  from: { path: `^src/${kind}/` },
  to: { path: '^src/', pathNot: `^src/(${[...allowed, kind].join('|')})/` },
});

/** The folders of a part, each with those that it may import: no two import each other. */
const within = (part, folders) =>
  Object.entries(folders).map(([folder, allowed]) => ({
    name: `${part.split('/').at(-1)}-${folder}`,
    comment: `src/${part}/${folder} imports of src/${part} only ${[folder, ...allowed].join(', ')}.`,
    severity: 'error',
    from: { path: `^src/${part}/${folder}/` },
    to: { path: `^src/${part}/([^/]+/|index\\.ts$)`, pathNot: `^src/${part}/(${[folder, ...allowed].join('|')})/` },
  }));

/** Neither Node's modules nor npm's. */
const THIRD_PARTY = ['core', 'npm', 'npm-dev', 'npm-optional', 'npm-peer', 'npm-bundled', 'npm-no-pkg', 'npm-unknown'];
const NODE = ['core'];
const NPM = THIRD_PARTY.filter((type) => type !== 'core');

const pure = (kind, but) => ({
  name: `${kind}-pure`,
  comment: `src/${kind} imports neither node:* nor a package.`,
  severity: 'error',
  from: { path: `^src/${kind}/`, ...(but && { pathNot: but }) },
  to: { dependencyTypes: THIRD_PARTY },
});

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
const PEERS = `(^|/)node_modules/(${Object.keys(peerDependencies).map(escape).join('|')})/`;

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'core-imports-only-core',
      comment: 'Core knows no database, no broker, no runtime: it imports core and nothing else.',
      severity: 'error',
      from: { path: '^src/core/' },
      to: { pathNot: '^src/core/' },
    },
    {
      name: 'root-imports-only-core',
      comment:
        'The root, and what authors of adapters need, drag in no dependency: adapters are subpaths of their own.',
      severity: 'error',
      from: { path: '^src/(index|adapter)\\.ts$' },
      to: { pathNot: '^src/core/' },
    },
    {
      name: 'nothing-imports-the-root',
      comment: 'Files of the package import what they need from where it is, not from the root or from adapter.ts.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^src/(index|adapter)\\.ts$' },
    },

    ...within('core', {
      util: [],
      contracts: ['util'],
      publish: ['contracts', 'util'],
      relay: ['publish', 'contracts', 'util'],
      outbox: ['relay', 'contracts', 'util'],
    }),
    ...within('stores/postgres', {
      sql: [],
      schema: ['sql'],
      drivers: ['sql'],
      write: ['drivers', 'schema', 'sql'],
      relay: ['write', 'drivers', 'sql'],
      inbox: ['write', 'drivers', 'sql'],
      ops: ['write', 'schema', 'sql'],
    }),

    apart('stores'),
    apart('bridges'),
    apart('brokers'),
    apart('frameworks'),

    only('stores', 'core'),
    only('bridges', 'core'),
    only('brokers', 'core'),
    only('frameworks', 'core'),
    only('inbox', 'core'),
    only('testing', 'core'),

    pure('testing'),
    pure('bridges'),
    pure('frameworks', adapterOf('frameworks').replace('([^/]+?)', 'nest')),
    {
      name: 'nest-imports-only-nest',
      comment: 'What Nest injects it knows by its classes: those of @nestjs/core are imported, and nothing else.',
      severity: 'error',
      from: { path: adapterOf('frameworks').replace('([^/]+?)', 'nest') },
      to: { dependencyTypes: THIRD_PARTY, pathNot: '(^|/)node_modules/@nestjs/core/' },
    },
    pure('inbox'),

    {
      name: 'stores-import-no-client',
      comment: 'A store takes its client, describes the slice that it needs, and imports nothing.',
      severity: 'error',
      from: { path: '^src/stores/' },
      to: { dependencyTypes: NPM },
    },
    {
      name: 'brokers-without-node',
      comment: 'Publishers and subscribers run wherever their SDK runs.',
      severity: 'error',
      from: { path: '^src/brokers/' },
      to: { dependencyTypes: NODE },
    },
    {
      name: 'only-declared-peers',
      comment: 'A client that is imported at run time is an optional peer dependency of package.json.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/cli/' },
      to: { dependencyTypes: NPM, pathNot: [PEERS, '(^|/)node_modules/commander/'] },
    },
    {
      name: 'only-cli-imports-commander',
      comment: 'The one dependency is the command line’s.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/cli/' },
      to: { path: '(^|/)node_modules/commander/' },
    },
    {
      name: 'only-tests-import-testing',
      comment: 'What is for tests is imported by tests.',
      severity: 'error',
      from: { pathNot: ['^(src/testing|test)/', '^examples/.+\\.test\\.ts$'] },
      to: { path: '^src/testing/' },
    },
    {
      name: 'nothing-imports-cli',
      comment: 'The command line is arguments and printing over functions that live elsewhere.',
      severity: 'error',
      from: { pathNot: '^src/cli/' },
      to: { path: '^src/cli/' },
    },
    {
      name: 'src-imports-only-src',
      comment: 'What is published does not import what is not.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|bench|examples|scripts|dist)/' },
    },
    {
      name: 'no-circular',
      comment: 'Of types neither: of two files in a cycle none can be understood first.',
      severity: 'error',
      from: { path: '^src/' },
      to: { circular: true },
    },
    {
      name: 'no-orphans',
      comment: 'A file that nothing imports and that imports nothing is not part of the package.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(index|adapter|cli/main)\\.ts$', orphan: true },
      to: {},
    },
    {
      name: 'not-to-unresolvable',
      comment: 'An import that leads nowhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    // Next.js is installed by scripts/check-next.ts alone.
    exclude: { path: '^examples/next/' },
    // Types count: an adapter that needs another one's types cannot move out either.
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    combinedDependencies: false,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['types', 'import', 'node', 'default'] },
  },
};

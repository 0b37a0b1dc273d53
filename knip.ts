import type { KnipConfig } from 'knip';
import tsconfig from './tsconfig.json' with { type: 'json' };

export default {
  // The package's own subpaths: the same list that TypeScript reads.
  entry: [
    ...Object.values(tsconfig.compilerOptions.paths).flat(),
    'src/cli/main.ts',
    'examples/*/main.ts',
    'examples/**/*.test.ts',
    'scripts/{,versions/}*.ts',
  ],
  project: ['{src,test,bench,examples,scripts}/**/*.ts'],
  // Prisma wrote the one; the others are checked by scripts/check-next.ts and check-versions.ts.
  ignore: ['examples/prisma/generated/**', 'examples/next/**', 'scripts/versions/next/**'],
  // platform: Node, which npm puts on the path of scripts, and servers, whose binaries test/support looks up by path.
  // esbuild: that of tsx and vitest, which scripts/bundle.ts measures with.
  // drizzle-kit: a command, which test/tools runs from a shell.
  // jest, ts-jest: the examples' own, which test/support/installed.ts links into their copies.
  // vitest-runner: Stryker loads it by its name, which scripts/mutants.ts gives.
  ignoreDependencies: ['platform', '@stryker-mutator/vitest-runner', 'esbuild', 'drizzle-kit', 'jest', 'ts-jest'],
  // Debian's, as is what test/system looks up by path.
  ignoreBinaries: ['pgbouncer'],
  // A type that stands beside its function is documentation, whether or not a second file names it.
  ignoreExportsUsedInFile: { interface: true, type: true },
} satisfies KnipConfig;

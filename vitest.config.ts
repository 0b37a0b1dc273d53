import { fileURLToPath } from 'node:url';
import { configDefaults, defineConfig } from 'vitest/config';
import tsconfig from './tsconfig.json' with { type: 'json' };

/** The package's own subpaths, from source: the same list that TypeScript reads. */
const alias = Object.entries(tsconfig.compilerOptions.paths).map(([name, [file]]) => ({
  find: new RegExp(`^${name}$`),
  replacement: fileURLToPath(new URL(file as string, import.meta.url)),
}));

export default defineConfig({
  resolve: { alias },
  test: {
    include: ['test/**/*.test.ts'],
    // What needs more than npm brings: see vitest.system.config.ts.
    exclude: [...configDefaults.exclude, 'test/system/**'],
    globalSetup: ['test/support/temporary.ts', 'test/support/engines.ts'],
    testTimeout: 180_000,
    hookTimeout: 120_000,
    maxWorkers: 3,
    allowOnly: false,
  },
});

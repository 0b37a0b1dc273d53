/** What `npm run mutants` runs for each mutant: the tests of one part of the sources, on one version of PostgreSQL. */
import { configDefaults, defineConfig, mergeConfig } from 'vitest/config';
import base from './vitest.config.js';

const { include: _include, exclude: _exclude, ...test } = base.test ?? {};

export default mergeConfig(
  { resolve: base.resolve },
  defineConfig({
    test: {
      ...test,
      include: (process.env['MUTANTS_TESTS'] ?? '').split(','),
      // Tests of the tests, which read the sources and build mutants of their own.
      exclude: [...configDefaults.exclude, 'test/simulation/mutants.test.ts'],
      maxWorkers: 1,
    },
  }),
);

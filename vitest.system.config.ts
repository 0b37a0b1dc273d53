/** `npm run test:system`: what needs PostgreSQL's own tools (pg_dump, pg_upgrade …), which npm does not have. */
import { defineConfig, mergeConfig } from 'vitest/config';
import base from './vitest.config.js';

const { include: _include, exclude: _exclude, globalSetup: _globalSetup, ...test } = base.test ?? {};

export default mergeConfig(
  { resolve: base.resolve },
  defineConfig({
    test: {
      ...test,
      include: ['test/system/**/*.test.ts'],
      globalSetup: ['test/system/setup.ts'],
      testTimeout: 300_000,
    },
  }),
);

/**
 * `POSTGRES_POOLER=pgbouncer vitest run --config vitest.pooled.config.ts`, of `npm run test:pooled`: what talks to
 * PostgreSQL, through PgBouncer in transaction mode, but for the files that are named here.
 */
import { configDefaults, defineConfig, mergeConfig } from 'vitest/config';
import base from './vitest.config.js';

const { include: _include, exclude: _exclude, ...test } = base.test ?? {};
const store = 'test/stores/postgres';

export default mergeConfig(
  { resolve: base.resolve },
  defineConfig({
    test: {
      ...test,
      include: ['stores', 'core', 'faults', 'bridges', 'inbox', 'frameworks', 'cli'].map(
        (of) => `test/${of}/**/*.test.ts`,
      ),
      exclude: [
        ...configDefaults.exclude,
        // About what a session keeps, which a pooler takes away: plans, settings, its number, who is notified; and steps
        // that are told apart by the names of prepared statements.
        ...['plan', 'drivers', 'add', 'wake', 'shared', 'hazards-clean', 'settings'].map(
          (of) => `${store}/${of}.test.ts`,
        ),
        'test/bridges/neon.test.ts',
        // postgres.js by itself waits for ever for some answers behind PgBouncer 1.18; the store's suite tries it there.
        'test/bridges/postgres-js.test.ts',
        // Connections are told apart by the name that their client gave.
        'test/faults/standby.test.ts',
        // On servers of their own, to which no pooler leads.
        ...['moved', 'hazards-places', 'hazards-sharing'].map((of) => `${store}/${of}.test.ts`),
        'test/faults/failover.test.ts',
      ],
      testTimeout: 120_000,
    },
  }),
);

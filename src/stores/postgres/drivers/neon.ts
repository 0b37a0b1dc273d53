import { hasMethods } from '../../../core/util/options.js';
import type { Driver } from './driver.js';

/**
 * Rejects Neon's HTTP client, which is the `sql` that `neon()` returns. That client looks like the `sql` of
 * postgres.js, but has no transaction to write through. Neon's Pool and Client, which use WebSockets, count as `pg`
 * clients.
 */
export const neonHttpDriver: Driver = {
  name: 'Neon over HTTP',
  database: () => undefined,
  handle: (handle) =>
    // Knex and Bun's client are also functions with a `transaction` method. Knex also has `raw`, and Bun's client has
    // `begin`.
    typeof handle === 'function' &&
    hasMethods(handle, 'transaction') &&
    !hasMethods(handle, 'raw') &&
    !hasMethods(handle, 'begin')
      ? {
          refused:
            'the sql of Neon’s neon() commits every query by itself: add the statement of store.statement(…) to sql.transaction([…]) as sql.query(text, values), or pass a client of Neon’s Pool that ran BEGIN',
        }
      : undefined,
};

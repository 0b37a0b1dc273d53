import { hasMethods } from '../../../core/util/options.js';
import type { Driver } from './driver.js';

/**
 * Refuses Neon's HTTP client, the `sql` of `neon()`. It has no transaction to write through, and looks like the `sql`
 * of postgres.js. Neon's Pool and Client, over WebSockets, count as clients of `pg`.
 */
export const neonHttpDriver: Driver = {
  name: 'Neon over HTTP',
  database: () => undefined,
  handle: (handle) =>
    // Knex is also a function with a `transaction`. So is Bun's client, which also has a `begin`.
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

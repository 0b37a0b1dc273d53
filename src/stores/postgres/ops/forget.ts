import { LOCK_NOT_AVAILABLE } from '../sql/transact.js';
import { preamble, type Connection, type Database, type TransactionBounds } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { statement } from '../sql/statement.js';

/**
 * Returns SQL for the time until which destination `d` has, or had, a relay. This is the latest end, past or future, of
 * a lease or of a relay's registration. (A relay that is waiting for its share of the partitions has only a
 * registration.) A released lease ends at the time of its release. `d` must not begin with `own`, because the SQL uses
 * that name.
 */
export function workedUntil({ cursors, relays }: Names, d: string): string {
  return `(SELECT max(until) FROM (
    SELECT max(own.expires_at) FROM ${cursors} own WHERE own.destination = ${d}
    UNION ALL SELECT max(own.expires_at) FROM ${relays} own WHERE own.destination = ${d}) AS worked (until))`;
}

/** Returns an SQL condition on a row in the cursors table. It is true if cleaning waits for the row's destination. */
export function notForgotten({ destinations }: Names): string {
  return `destination NOT IN (SELECT name FROM ${destinations} WHERE forgotten_at IS NOT NULL)`;
}

/**
 * Marks the destinations that have had no relay for longer than their limit, so that cleaning no longer waits for them.
 * A relay cannot return to a destination between the check and the mark. Both the relay and this function lock the
 * destination's cursors, and check again in a statement after the lock.
 *
 * Yields the name of each marked destination after the commit. If it cannot mark one destination, it still marks the
 * others. The first error is thrown at the end.
 */
export async function* forgetAbandoned(
  database: Database,
  names: Names,
  bounds: TransactionBounds,
): AsyncGenerator<string, void> {
  const { cursors, destinations } = names;
  const isAbandoned = `d.forgotten_at IS NULL AND d.forget_after IS NOT NULL
    AND greatest(d.created_at, ${workedUntil(names, 'd.name')}) < clock_timestamp() - d.forget_after * interval '1 second'`;
  const found = await database.transaction(
    preamble(bounds.timeout),
    (connection) =>
      connection.query(statement('abandoned', `SELECT d.name FROM ${destinations} d WHERE ${isAbandoned}`)),
    bounds,
  );
  let failed: { readonly error: unknown } | undefined;
  for (const [name] of found as readonly (readonly [string])[]) {
    const forget = async (connection: Connection): Promise<boolean> => {
      const lock = `SELECT FROM ${cursors} WHERE destination = $1::text ORDER BY partition FOR UPDATE NOWAIT`;
      await connection.query(statement('forget_lock', lock), [name]);
      const marked = await connection.query(
        statement(
          'forget',
          `UPDATE ${destinations} d SET forgotten_at = clock_timestamp() WHERE d.name = $1::text AND ${isAbandoned} RETURNING d.name`,
        ),
        [name],
      );
      if (marked.length === 0) return false;
      // A relay that was suspended until after its lease ended must not continue with that lease.
      const fence = `UPDATE ${cursors} SET owner = NULL, epoch = epoch + 1, written_by = pg_current_xact_id() WHERE destination = $1::text`;
      await connection.query(statement('forget_fence', fence), [name]);
      return true;
    };
    let isForgotten = false;
    try {
      isForgotten = await database.transaction(preamble(bounds.timeout), forget, bounds);
    } catch (error) {
      // If the rows are locked, somebody is using the destination.
      if ((error as { code?: unknown }).code !== LOCK_NOT_AVAILABLE) failed ??= { error };
      if (bounds.signal?.aborted === true) break;
    }
    if (isForgotten) yield name;
  }
  if (failed !== undefined) throw failed.error;
}

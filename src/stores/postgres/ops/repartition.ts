import { MessengerError } from '../../../core/errors.js';
import { numberOption } from '../../../core/util/options.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { howToRebase } from '../schema/provenance.js';
import { conflict, orConflict, transact, type OperationContext } from '../sql/transact.js';
import { workedUntil } from './forget.js';
import { statement } from '../sql/statement.js';

/** The allowed number of partitions in a store. */
export const PARTITIONS = { min: 1, max: 1_024, integer: true } as const;

/**
 * Divides the keys of every destination among a different number of partitions, in one transaction. From then on, every
 * store needs that number in its `partitions` option. Relays with the old number are rejected.
 *
 * @throws MessengerError `CONFLICT` while a relay is running, if the partitions of a destination have not been read up
 *   to the same position, or if messages are waiting to be tried again. The error says which of these is the cause, and
 *   what to do. `SCHEMA_MISMATCH` if the cursors come from another cluster.
 */
export async function repartition(
  context: OperationContext,
  partitions: number,
  options: StoreCallOptions = {},
): Promise<void> {
  const wanted = numberOption('partitions', partitions, partitions, PARTITIONS);
  const { cursors, claims, parked, settings } = context.names;
  const isWorkedOn = (who: string) =>
    `${who}: stop every relay of this store first (a relay that died still counts until its lease expires)`;
  await transact(context, options, async (connection) => {
    // Lock the whole table, so that no relay can add cursors for a new destination with the old number of partitions.
    const lock = `LOCK TABLE ${cursors} IN EXCLUSIVE MODE NOWAIT`;
    await orConflict(connection.query(statement('repartition_lock', lock)), isWorkedOn('a relay is running'));
    // Read in statements after the lock. They see all changes that were committed before the lock was acquired.
    const place = '(c.from_snapshot::text, c.to_snapshot::text, c.after, c.low, c.next_low, c.high)';
    const found = await connection.query(
      statement(
        'repartition_look',
        `SELECT c.destination, count(DISTINCT ${place})::text, bool_and(c.xmin = c.written_by::xid)::text,
    (${workedUntil(context.names, 'c.destination')} > clock_timestamp())::text,
    EXISTS (SELECT FROM ${parked} p WHERE p.destination = c.destination AND p.dead_at IS NULL)::text
  FROM ${cursors} c GROUP BY c.destination ORDER BY c.destination`,
      ),
    );
    for (const [destination, places, isOurs, isHeld, waits] of found) {
      const name = `destination ${JSON.stringify(destination)}`;
      if (isHeld === 'true') throw conflict(isWorkedOn(`a relay works on ${name}`));
      if (isOurs !== 'true') {
        throw new MessengerError(
          'SCHEMA_MISMATCH',
          `the cursors of ${name} were not written by this database cluster. To continue from them, ${howToRebase(context.names)}`,
        );
      }
      if (waits === 'true') {
        throw conflict(
          `messages of ${name} are waiting to be retried: let its relay run until \`store.admin.destinations()\` shows none parked, or discard blocked ones with \`store.admin.discard\`, and try again`,
        );
      }
      if (places !== '1') {
        throw conflict(
          `the partitions of ${name} have not been read up to the same position: let a single relay run until nothing is pending, stop it, and try again`,
        );
      }
    }
    const run = (text: string, ...values: number[]) => connection.query(statement('repartition', text), values);
    await run(`DELETE FROM ${cursors} WHERE partition >= $1::integer`, wanted);
    await run(
      `INSERT INTO ${cursors} (destination, partition, epoch, expires_at, from_snapshot, to_snapshot, after, low, next_low, high)
  SELECT destination, p, epoch, expires_at, from_snapshot, to_snapshot, after, low, next_low, high
  FROM ${cursors} c, generate_series(1, $1::integer - 1) AS p
  WHERE partition = 0 AND NOT EXISTS (SELECT FROM ${cursors} d WHERE d.destination = c.destination AND d.partition = p)`,
      wanted,
    );
    // A relay that was suspended until after its lease ended must not continue with that lease.
    await run(`UPDATE ${cursors} SET owner = NULL, epoch = epoch + 1, written_by = pg_current_xact_id()`);
    await run(`DELETE FROM ${claims}`);
    await run(`UPDATE ${settings} SET value = $1::integer::text WHERE name = 'partitions'`, wanted);
  });
}

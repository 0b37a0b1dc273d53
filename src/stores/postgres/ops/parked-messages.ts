import { checkParked } from '../../../core/contracts/admin-options.js';
import { transact, type OperationContext } from '../sql/transact.js';
import { assertKnown } from './known-destinations.js';
import { filterValues } from './dead-letters.js';
import { decodeParked, parkedColumns } from './parked-columns.js';
import { INDEX_SETTINGS, statement, untried } from '../sql/statement.js';
import type { ParkedState, ParkedOptions, ParkedMessage } from '../../../core/contracts/admin.js';

/**
 * The SQL condition for each state of a waiting message. The `parked` count from `destinations()` includes all states.
 */
const STATES = {
  /** The message has failed or was requeued, and will be tried at `nextAt`. */
  retry: `p.blocked_at IS NULL AND p.next_at IS NOT NULL AND NOT ${untried}`,
  /** An earlier message with the same key comes first. */
  behind: 'p.blocked_at IS NULL AND p.next_at IS NULL',
  /** The message's `deliverAt` time has not come yet, or has only just come. */
  delayed: `p.blocked_at IS NULL AND p.next_at IS NOT NULL AND ${untried}`,
  /** The relay has stopped retrying the message. Later messages with the same key wait until an operator acts. */
  blocked: 'p.blocked_at IS NOT NULL',
} as const satisfies Record<ParkedState, string>;

/** Returns the messages that are waiting in the side table, in the order in which they were stored. */
export async function parkedMessages(
  context: OperationContext,
  options: ParkedOptions = {},
): Promise<readonly ParkedMessage[]> {
  const { limit, after } = checkParked(options);
  const { state, limit: _limit, after: _after, signal: _signal, ...filter } = options;
  const stateOf = Object.entries(STATES).map(([name, holds]) => `WHEN ${holds} THEN '${name}'`);
  const text = `SELECT ${parkedColumns(context.jsonPayload, `CASE ${stateOf.join(' ')} END`, 'p.next_at')}
  FROM ${context.names.parked} p WHERE p.destination = $1::text AND p.dead_at IS NULL
    AND ($2::text IS NULL OR p.id IN (SELECT json_array_elements_text($2::text::json)))
    AND ($3::text IS NULL OR p.key = $3::text) AND ($4::text IS NULL OR p.topic = $4::text)
    AND ($5::text IS NULL OR strpos(p.error, $5::text) > 0) ${state === undefined ? '' : `AND (${STATES[state]})`}
    AND p.seq > $6::bigint ORDER BY p.seq LIMIT $7::bigint`;
  const [destination = null, ids = null, key = null, topic = null, , error = null] = filterValues(filter);
  const rows = await transact(
    context,
    options,
    async (connection) => {
      const values = [destination, ids, key, topic, error, after, limit];
      const found = await connection.query(statement('waiting_messages', text), values);
      if (found.length === 0) await assertKnown(context, connection, options.destination);
      return found;
    },
    { settings: INDEX_SETTINGS },
  );
  return rows.map((row) => {
    const { time, state: found, ...message } = decodeParked(row);
    return { ...message, state: found as ParkedState, nextAt: time };
  });
}

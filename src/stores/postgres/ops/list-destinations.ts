import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { DEFAULT_DESTINATION } from '../../../core/contracts/feed.js';
import { transact, type OperationContext } from '../sql/transact.js';
import { columnsOf, timeOf } from '../sql/columns.js';
import type { Connection } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { COUNTED, destinationStates, STATE_SETTINGS } from './destination-state.js';
import type { DestinationState } from '../../../core/contracts/admin.js';
import { milliseconds, statement } from '../sql/statement.js';

/** Returns the state of every destination, sorted by name. The cost does not grow with the log. */
export async function destinations(
  context: OperationContext,
  options: StoreCallOptions = {},
): Promise<readonly DestinationState[]> {
  return transact(
    context,
    options,
    async (connection) => {
      const states = await destinationStates(context.names, connection);
      return withUnclaimed(context.names, connection, states);
    },
    { settings: STATE_SETTINGS },
  );
}

/**
 * Adds a state for the `default` destination if it does not exist yet, but there are messages that no destination
 * publishes. Operators need to see these messages before the first relay runs. As in every state, only the newest messages in the log are
 * counted.
 */
async function withUnclaimed(
  names: Names,
  connection: Connection,
  states: readonly DestinationState[],
): Promise<readonly DestinationState[]> {
  if (states.some(({ name, topics }) => name === DEFAULT_DESTINATION || topics === null)) return states;
  const taken = JSON.stringify([...new Set(states.flatMap(({ topics }) => topics ?? []))]);
  const [row = []] = await connection.query(unclaimed(names), [taken]);
  const { at } = UNCLAIMED;
  const pending = Number(row[at.pending]);
  if (pending === 0) return states;
  const state: DestinationState = {
    name: DEFAULT_DESTINATION,
    topics: null,
    partitions: Number(row[at.partitions]),
    held: 0,
    relays: 0,
    pending,
    morePending: row[at.morePending] === 'true',
    oldestPending: Number(row[at.oldestPending]),
    parked: 0,
    blocked: 0,
    dead: 0,
    createdAt: null,
    activeAt: null,
    stalledSince: timeOf(row[at.stalledSince]),
    forgetAfter: null,
    forgottenAt: null,
  };
  return [...states, state].sort((a, b) => (a.name < b.name ? -1 : 1));
}

const UNCLAIMED = columnsOf('pending', 'oldestPending', 'morePending', 'stalledSince', 'partitions');

/**
 * $1 is a JSON array of the topics that destinations publish. Messages that are addressed to a destination are not
 * counted, because that destination publishes them.
 */
function unclaimed({ messages, settings }: Names) {
  const columns = UNCLAIMED.list({
    pending: 'count(*)::text',
    oldestPending: milliseconds('clock_timestamp() - min(stored_at)'),
    morePending: `((SELECT count(*) FROM newest) = ${String(COUNTED)})::text`,
    stalledSince: milliseconds('min(stored_at)'),
    partitions: `(SELECT value FROM ${settings} WHERE name = 'partitions')`,
  });
  return statement(
    'unclaimed',
    `WITH newest AS MATERIALIZED (SELECT topic, destination, stored_at FROM ${messages} ORDER BY seq DESC LIMIT ${String(COUNTED)}),
  found AS MATERIALIZED (SELECT stored_at FROM newest WHERE destination IS NULL
    AND (topic IS NULL OR NOT topic IN (SELECT json_array_elements_text($1::text::json))))
SELECT ${columns} FROM found`,
  );
}

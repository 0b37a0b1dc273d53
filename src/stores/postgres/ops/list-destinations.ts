import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { DEFAULT_DESTINATION } from '../../../core/contracts/feed.js';
import { transact, type Admin } from '../sql/transact.js';
import type { Connection } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { COUNTED, destinationStates, STATE_SETTINGS, type DestinationState } from './destination-state.js';
import { milliseconds, statement } from '../sql/statement.js';

/** The state of every destination, by name. Its cost does not grow with the log. */
export async function destinations(admin: Admin, options: StoreCallOptions = {}): Promise<readonly DestinationState[]> {
  return transact(
    admin,
    options,
    async (connection) => {
      const states = await destinationStates(admin.names, connection);
      return withUnclaimed(admin.names, connection, states);
    },
    { settings: STATE_SETTINGS },
  );
}

/**
 * The states, with that of `default` where it is not there yet, and messages are that no destination publishes: just
 * before its first relay somebody needs to see them. Counted among the newest of the log, as all states.
 */
async function withUnclaimed(
  names: Names,
  connection: Connection,
  states: readonly DestinationState[],
): Promise<readonly DestinationState[]> {
  if (states.some(({ name, topics }) => name === DEFAULT_DESTINATION || topics === null)) return states;
  const taken = JSON.stringify([...new Set(states.flatMap(({ topics }) => topics ?? []))]);
  const [row] = await connection.query(unclaimed(names), [taken]);
  const [pending, oldest, isFull, storedAt, partitions] = row as readonly (string | null)[];
  if (pending === '0') return states;
  const state: DestinationState = {
    name: DEFAULT_DESTINATION,
    topics: null,
    partitions: Number(partitions),
    held: 0,
    relays: 0,
    pending: Number(pending),
    morePending: isFull === 'true',
    oldestPending: Number(oldest),
    waiting: 0,
    blocked: 0,
    dead: 0,
    createdAt: null,
    activeAt: null,
    stalledSince: new Date(Number(storedAt)),
    forgetAfter: null,
    forgottenAt: null,
  };
  return [...states, state].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** $1 JSON array: the topics that some destination publishes. What is for a destination alone is taken by that. */
function unclaimed({ messages, settings }: Names) {
  return statement(
    'unclaimed',
    `WITH newest AS MATERIALIZED (SELECT topic, destination, stored_at FROM ${messages} ORDER BY seq DESC LIMIT ${String(COUNTED)}),
  found AS MATERIALIZED (SELECT stored_at FROM newest WHERE destination IS NULL
    AND (topic IS NULL OR NOT topic IN (SELECT json_array_elements_text($1::text::json))))
SELECT count(*)::text, ${milliseconds('clock_timestamp() - min(stored_at)')}, ((SELECT count(*) FROM newest) = ${String(COUNTED)})::text,
  ${milliseconds('min(stored_at)')}, (SELECT value FROM ${settings} WHERE name = 'partitions') FROM found`,
  );
}

import { hasCode, MessengerError } from '../../../core/errors.js';
import {
  assertDestination,
  checkAddDestination,
  checkRemoveDestination,
  checkUpdateDestination,
  destinationExists,
  fromFuture,
  hasMessages,
  relayWorksOn,
} from '../../../core/contracts/admin-options.js';
import { DEFAULT_DESTINATION } from '../../../core/contracts/feed.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { conflict, orConflict, transact, type OperationContext } from '../sql/transact.js';
import type { Connection } from '../sql/database.js';
import { literal } from '../sql/names.js';
import { destinationStates } from './destination-state.js';
import { unknown } from './known-destinations.js';
import { lockDestination, statement } from '../sql/statement.js';
import type {
  AddDestinationOptions,
  RemovedDestination,
  UpdateDestinationOptions,
  RemoveDestinationOptions,
} from '../../../core/contracts/admin.js';

/**
 * Adds a destination, with its cursors and the topics that it publishes.
 *
 * One transaction takes the snapshot for the cursors. An earlier transaction reads the last sequence number, then gets
 * a transaction id, and ends. Any transaction that is neither visible in the snapshot nor listed as running got its id
 * after that, so its sequence numbers are greater. The last sequence number is therefore a safe `low`.
 *
 * @throws MessengerError `CONFLICT` if there is a destination with that name, `INVALID_OPTION` for an option out of
 *   range.
 */
export async function addDestination(
  context: OperationContext,
  name: string,
  options: AddDestinationOptions,
): Promise<void> {
  checkAddDestination(name, options);
  const { from, topics, forgetAfter } = options;
  const since = from instanceof Date ? from.getTime() : null;
  const { messages, cursors, destinations, settings } = context.names;

  const low = await transact(context, options, async (connection) => {
    // Use two statements, so that the transaction has no id yet when it reads the sequence.
    const sequence = `pg_get_serial_sequence(${literal(messages)}, 'seq')::regclass`;
    const [row] = await connection.query(
      statement('sequence', `SELECT coalesce(pg_sequence_last_value(${sequence}), 0)::text`),
    );
    await connection.query(statement('xid', 'SELECT pg_current_xact_id()::text'));
    return row?.[0] as string;
  });

  const add = async (connection: Connection) => {
    const insert = `INSERT INTO ${destinations} (name, topics, forget_after)
  VALUES ($1::text, CASE WHEN $2::text IS NOT NULL THEN ARRAY(SELECT json_array_elements_text($2::text::json)) END, $3::double precision / 1000) ON CONFLICT (name) DO NOTHING RETURNING name`;
    const named = await connection.query(statement('add', insert), [
      name,
      topics === undefined ? null : JSON.stringify(topics),
      forgetAfter ?? null,
    ]);
    const [row] = await connection.query(
      statement(
        'add_facts',
        `SELECT value, (to_timestamp($1::double precision / 1000) > clock_timestamp())::text FROM ${settings} WHERE name = 'partitions' FOR SHARE`,
      ),
      [since],
    );
    const [partitions, isAhead] = row as readonly [string, string | null];
    if (isAhead === 'true') throw fromFuture(from);
    // A start time becomes an open window from the beginning of the log to now. In this window, all messages from
    // before the start time count as delivered. Messages that are committed later come after the window, even if they
    // have smaller sequence numbers.
    const place = {
      beginning: `SELECT '1:1:'::pg_snapshot, NULL::pg_snapshot, 0, 0, 0, 0`,
      end: `SELECT pg_current_snapshot(), NULL::pg_snapshot, 0, low, low, low FROM given`,
      since: `SELECT CASE WHEN first IS NULL THEN pg_current_snapshot() ELSE '1:1:' END,
    CASE WHEN first IS NOT NULL THEN pg_current_snapshot() END, coalesce(first - 1, 0), CASE WHEN first IS NULL THEN low ELSE 0 END, low, low
    FROM given, (SELECT min(seq) AS first FROM ${messages} WHERE stored_at >= (SELECT since FROM given)) found`,
    }[typeof from === 'string' ? from : 'since'];
    await connection.query(lockDestination(cursors), [name]);
    const rows = await connection.query(
      statement(
        'add_cursors',
        `WITH given AS (SELECT $3::bigint AS low, to_timestamp($4::double precision / 1000) AS since)
INSERT INTO ${cursors} (destination, partition, from_snapshot, to_snapshot, after, low, next_low, high)
  SELECT $1::text, partition, place.* FROM generate_series(0, $2::integer - 1) AS p (partition), (${place}) place
  WHERE NOT EXISTS (SELECT FROM ${cursors} WHERE destination = $1::text) RETURNING partition::text`,
      ),
      [name, partitions, low, since],
    );
    if (named.length === 0 || rows.length !== Number(partitions)) {
      throw destinationExists(name);
    }
  };
  // Finding the first message for a start time requires reading the whole log.
  await transact(context, options, add, { patience: since === null ? 1 : 10 });
}

/**
 * How many times in a row another process can seem to be adding a destination without finishing. After that, the call
 * throws.
 */
const DECLARATIONS = 5;

/**
 * Adds those of the named destinations that are missing. Messages can then be addressed to all of them.
 *
 * @throws MessengerError `UNKNOWN_DESTINATION` for a destination that is missing, and that this role may not add.
 */
export async function declareDestinations(
  context: OperationContext,
  names: readonly string[],
  options: StoreCallOptions = {},
): Promise<void> {
  for (const name of names) assertDestination(name);
  let left = DECLARATIONS;
  for (let before = names.length; ;) {
    const missing = await transact(context, options, (connection) => undeclared(context, connection, names));
    if (missing.length === 0) return;
    left = missing.length < before ? DECLARATIONS : left - 1;
    before = missing.length;
    for (const name of missing) {
      try {
        await declare(context, name, options);
      } catch (error) {
        if (isRefused(error)) throw undeclarable(name, error);
        // Another process has added the destination meanwhile, or a relay added it on start.
        if (!hasCode(error, 'CONFLICT') || left <= 0) throw error;
      }
    }
  }
}

function undeclarable(name: string, cause: unknown): MessengerError {
  return new MessengerError(
    'UNKNOWN_DESTINATION',
    `there is no destination ${JSON.stringify(name)} to which messages can be addressed, and this role may not add it: run \`await outbox.migrate()\`, or \`messenger add-destination ${name} --addressed\`, with the role that owns the tables`,
    { cause },
  );
}

/** Returns the destinations to which messages cannot be addressed yet. */
async function undeclared(
  { names }: OperationContext,
  connection: Connection,
  wanted: readonly string[],
): Promise<string[]> {
  const rows = await connection.query(
    statement(
      'undeclared',
      `SELECT w.name FROM json_array_elements_text($1::text::json) AS w (name)
  WHERE NOT EXISTS (SELECT FROM ${names.destinations} d WHERE d.name = w.name)`,
    ),
    [JSON.stringify(wanted)],
  );
  return rows.map(([name]) => name as string);
}

/** @throws MessengerError `CONFLICT` if somebody adds the destination at the same moment. */
async function declare(context: OperationContext, name: string, { signal }: StoreCallOptions): Promise<void> {
  const { cursors, destinations } = context.names;
  // A destination that a starting relay has added publishes everything, and continues to do so.
  const known = await transact(context, { signal }, async (connection) => {
    await connection.query(lockDestination(cursors), [name]);
    return connection.query(
      statement(
        'declare',
        `INSERT INTO ${destinations} (name) SELECT $1::text WHERE EXISTS (SELECT FROM ${cursors} WHERE destination = $1::text)
  ON CONFLICT (name) DO NOTHING RETURNING name`,
      ),
      [name],
    );
  });
  if (known.length > 0) return;
  // Messages addressed to a new destination cannot exist yet, so such a destination starts at the end. The default
  // destination publishes all other messages, so it starts at the beginning.
  await addDestination(context, name, {
    ...(name === DEFAULT_DESTINATION ? { from: 'beginning' as const } : { from: 'end' as const, topics: [] }),
    signal,
  });
}

/** SQLSTATE insufficient_privilege. */
function isRefused(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === '42501';
}

/** Sets how long cleaning waits for a destination without a relay. @throws MessengerError `UNKNOWN_DESTINATION`. */
export async function updateDestination(
  context: OperationContext,
  name: string,
  options: UpdateDestinationOptions,
): Promise<void> {
  checkUpdateDestination(name, options);
  const { cursors, destinations } = context.names;
  await transact(context, options, async (connection) => {
    // Lock in an earlier statement. Otherwise, a destination that is being removed could be added again without its
    // cursors.
    await connection.query(lockDestination(cursors), [name]);
    const rows = await connection.query(
      statement(
        'limit',
        `INSERT INTO ${destinations} (name, forget_after)
  SELECT $1::text, $2::double precision / 1000 WHERE EXISTS (SELECT FROM ${cursors} WHERE destination = $1::text)
  ON CONFLICT (name) DO UPDATE SET forget_after = excluded.forget_after RETURNING name`,
      ),
      [name, options.forgetAfter],
    );
    if (rows.length === 0) throw await unknown(context, connection, name);
  });
}

/**
 * Removes a destination and everything that the tables record about it.
 *
 * @returns the numbers of messages that were removed with it.
 * @throws MessengerError `CONFLICT` while a relay serves it, or if it has unpublished messages and `discard` is not
 *   set; `UNKNOWN_DESTINATION`.
 */
export async function removeDestination(
  context: OperationContext,
  name: string,
  options: RemoveDestinationOptions = {},
): Promise<RemovedDestination> {
  checkRemoveDestination(name, options);
  const { cursors, claims, relays, parked, destinations } = context.names;
  const isStoredFor = `open transactions have stored messages for destination ${JSON.stringify(name)}, or an operator is changing it: give its topics another destination first, and try again`;
  return transact(context, options, async (connection) => {
    await connection.query(lockDestination(cursors), [name]);
    const lock = `SELECT FROM ${cursors} WHERE destination = $1::text ORDER BY partition FOR UPDATE NOWAIT`;
    await orConflict(connection.query(statement('remove_lock', lock), [name]), relayWorksOn(name));
    const guard = `SELECT FROM ${destinations} WHERE name = $1::text FOR UPDATE NOWAIT`;
    await orConflict(connection.query(statement('remove_guard', guard), [name]), isStoredFor);
    // With these locks, no relay can claim the destination, and all messages that were stored for it are committed.
    const [state] = await destinationStates(context.names, connection, name);
    if (!state) throw await unknown(context, connection, name);
    if (state.held > 0 || state.relays > 0) throw conflict(relayWorksOn(name));
    const { pending, morePending, dead } = state;
    if ((morePending || pending + state.parked + dead > 0) && options.discard !== true) {
      throw hasMessages(name, state);
    }
    for (const table of [parked, claims, relays, cursors]) {
      const text = `DELETE FROM ${table} WHERE destination = $1::text`;
      await connection.query(statement('remove', text), [name]);
    }
    await connection.query(statement('remove', `DELETE FROM ${destinations} WHERE name = $1::text`), [name]);
    return { pending, morePending, parked: state.parked, dead };
  });
}

import { checkDeadLetters, checkSelection } from '../../../core/contracts/admin-options.js';
import { DEFAULT_DESTINATION } from '../../../core/contracts/feed.js';
import { transact, type OperationContext } from '../sql/transact.js';
import type { Connection, Row, Value } from '../sql/database.js';
import { assertKnown, unknown } from './known-destinations.js';
import { decodeParked, parkedColumns } from './parked-columns.js';
import { INDEX_SETTINGS, statement } from '../sql/statement.js';
import type {
  DeadLetterFilter,
  DeadLettersOptions,
  DeadLetterSelection,
  DeadLetter,
} from '../../../core/contracts/admin.js';

/** How many messages one transaction changes. Until it ends, settlements in the same partition wait. */
const BATCH = 1_000;

const GIVEN_UP = 'p.dead_at IS NOT NULL OR p.blocked_at IS NOT NULL';

/** $1 to $8 are the values from `filterValues`. */
const MATCHES = `p.destination = $1::text AND (${GIVEN_UP})
    AND ($2::text IS NULL OR p.id IN (SELECT json_array_elements_text($2::text::json)))
    AND ($3::text IS NULL OR p.key = $3::text) AND ($4::text IS NULL OR p.topic = $4::text)
    AND ($5::text IS NULL OR ($5::text = 'dead') = (p.dead_at IS NOT NULL))
    AND ($6::text IS NULL OR strpos(p.error, $6::text) > 0)
    AND ($7::float8 IS NULL OR coalesce(p.dead_at, p.blocked_at) >= to_timestamp($7::float8 / 1000))
    AND ($8::float8 IS NULL OR coalesce(p.dead_at, p.blocked_at) < to_timestamp($8::float8 / 1000))`;

/** Returns the dead letters and the blocked messages, in the order in which they were stored. */
export async function deadLetters(
  context: OperationContext,
  options: DeadLettersOptions = {},
): Promise<readonly DeadLetter[]> {
  const { limit, after } = checkDeadLetters(options);
  const text = `SELECT ${parkedColumns(context.jsonPayload, `CASE WHEN p.dead_at IS NULL THEN 'blocked' ELSE 'dead' END`, 'coalesce(p.dead_at, p.blocked_at)')}
  FROM ${context.names.parked} p WHERE ${MATCHES} AND p.seq > $9::bigint ORDER BY p.seq LIMIT $10::bigint`;
  const rows = await transact(
    context,
    options,
    async (connection) => {
      const found = await connection.query(statement('letters', text), [...filterValues(options), after, limit]);
      if (found.length === 0) await assertKnown(context, connection, options.destination);
      return found;
    },
    { settings: INDEX_SETTINGS },
  );
  return rows.map(decode);
}

/**
 * Makes relays try dead letters and blocked messages again, with their attempts counted from zero. Relays can keep
 * running. Requeued messages with the same key are published in order. They are published before every later message
 * with that key that is still unpublished when the relay notices them, which takes up to a second. The call uses
 * several transactions, and requeues messages with the same key in order.
 *
 * @returns the number of requeued messages. With `dryRun`, the number of messages that would be requeued.
 */
export async function requeue(context: OperationContext, selection: DeadLetterSelection): Promise<number> {
  return change(
    context,
    selection,
    `UPDATE ${context.names.parked} SET dead_at = NULL, blocked_at = NULL, attempts = 0, reason = 'requeued',
  next_at = CASE WHEN key IS NULL OR alone THEN clock_timestamp() END
  WHERE destination = $1::text AND seq = ANY($2::text::bigint[])`,
  );
}

/**
 * Deletes dead letters and blocked messages permanently. Relays can keep running. Messages that were waiting behind a
 * blocked message are then published.
 *
 * @returns the number of deleted messages. With `dryRun`, the number of messages that would be deleted.
 */
export async function discard(context: OperationContext, selection: DeadLetterSelection): Promise<number> {
  const text = `DELETE FROM ${context.names.parked} WHERE destination = $1::text AND seq = ANY($2::text::bigint[])`;
  return change(context, selection, text);
}

async function change(context: OperationContext, selection: DeadLetterSelection, text: string): Promise<number> {
  checkSelection(selection);
  const filter = filterValues(selection);
  const destination = filter[0] as string;
  const { parked, cursors } = context.names;
  const count = `(SELECT count(*) FROM ${cursors} WHERE destination = $1::text)`;
  const partitions = await transact(context, selection, async (connection) => {
    const [row] = await connection.query(statement('partitions', `SELECT ${count}::text`), [destination]);
    if (row?.[0] === '0') {
      // The default destination always exists. Before its first relay starts, it has no dead letters.
      if (destination === DEFAULT_DESTINATION) return 0;
      throw await unknown(context, connection, destination);
    }
    if (selection.dryRun === true) {
      const matching = `SELECT count(*)::text FROM ${parked} p WHERE ${MATCHES}`;
      return Number((await connection.query(statement('matching', matching), filter))[0]?.[0]);
    }
    const where = `SELECT DISTINCT (p.key_hash % ${count})::text FROM ${parked} p WHERE ${MATCHES}`;
    return (await connection.query(statement('where', where), filter)).map(([partition]) => Number(partition));
  });
  if (typeof partitions === 'number') return partitions;
  let changed = 0;
  for (const partition of partitions) {
    for (let after = 0, last = BATCH; last === BATCH; changed += last) {
      const batch = await transact(
        context,
        selection,
        async (connection) => {
          // Lock the cursor's row first, as the owning relay's settlements do. Otherwise the operator and the relay
          // could each miss the other's changes to messages with the same key.
          const lock = `SELECT FROM ${cursors} WHERE destination = $1::text AND partition = $2::smallint FOR UPDATE`;
          await connection.query(statement('operator', lock), [destination, partition]);
          const found = await connection.query(
            statement(
              'batch',
              `SELECT p.seq::text, p.key FROM ${parked} p
  WHERE ${MATCHES} AND p.key_hash % ${count} = $9::bigint AND p.seq > $10::bigint ORDER BY p.seq LIMIT ${String(BATCH)}`,
            ),
            [...filter, partition, after],
          );
          if (found.length > 0) await changeBatch(context, connection, destination, found, text);
          return found;
        },
        { settings: INDEX_SETTINGS },
      );
      last = batch.length;
      after = Number(batch.at(-1)?.[0]);
    }
  }
  return changed;
}

async function changeBatch(
  { names }: OperationContext,
  connection: Connection,
  destination: string,
  batch: readonly Row[],
  text: string,
): Promise<void> {
  const { parked, destinations } = names;
  const numbers = `{${batch.map(([seq]) => seq as string).join(',')}}`;
  const keys = [...new Set(batch.flatMap(([, key]) => (typeof key === 'string' ? [key] : [])))];
  await connection.query(statement('change', text), [destination, numbers]);
  // For each key, the first waiting message becomes due, unless it is blocked or already has a due time.
  await connection.query(
    statement(
      'change_heads',
      `UPDATE ${parked} p SET next_at = greatest(clock_timestamp(), p.deliver_at)
  FROM json_array_elements_text($2::text::json) AS k (key) CROSS JOIN LATERAL (
    SELECT e.seq FROM ${parked} e
    WHERE e.destination = $1::text AND e.key BETWEEN k.key AND k.key AND e.dead_at IS NULL AND NOT e.alone
    ORDER BY e.key, e.seq LIMIT 1
  ) head
  WHERE p.destination = $1::text AND p.seq = head.seq AND p.next_at IS NULL AND p.blocked_at IS NULL`,
    ),
    [destination, JSON.stringify(keys)],
  );
  const revise = `INSERT INTO ${destinations} AS d (name, revision) VALUES ($1::text, 1) ON CONFLICT (name) DO UPDATE SET revision = d.revision + 1`;
  await connection.query(statement('revise', revise), [destination]);
}

/** Returns the values for $1 to $8. */
export function filterValues({
  destination = DEFAULT_DESTINATION,
  ids,
  key,
  topic,
  state,
  error,
  since,
  until,
}: DeadLetterFilter): Value[] {
  return [
    destination,
    ids ? JSON.stringify(ids) : null,
    key ?? null,
    topic ?? null,
    state ?? null,
    error ?? null,
    since?.getTime() ?? null,
    until?.getTime() ?? null,
  ];
}

function decode(row: Row): DeadLetter {
  const { time, state, ...letter } = decodeParked(row);
  return { ...letter, state: state as DeadLetter['state'], givenUpAt: time as Date };
}

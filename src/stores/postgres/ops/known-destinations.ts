import { DEFAULT_DESTINATION } from '../../../core/contracts/feed.js';
import type { MessengerError } from '../../../core/errors.js';
import { unknownDestination } from '../../../core/contracts/admin-options.js';
import type { Connection } from '../sql/database.js';
import { statement } from '../sql/statement.js';
import type { OperationContext } from '../sql/transact.js';

/**
 * Throws unless the destination exists. `default` always exists, although it has no rows before its first relay starts.
 *
 * @throws MessengerError `UNKNOWN_DESTINATION` for a destination that nobody has added and that no relay has ever
 * served.
 */
export async function assertKnown(
  context: OperationContext,
  connection: Connection,
  name: string = DEFAULT_DESTINATION,
): Promise<void> {
  if (name === DEFAULT_DESTINATION) return;
  const { cursors, destinations } = context.names;
  const text = `SELECT name FROM ${destinations} WHERE name = $1::text
  UNION ALL (SELECT destination FROM ${cursors} WHERE destination = $1::text LIMIT 1)`;
  if ((await connection.query(statement('is_known', text), [name])).length === 0) {
    throw await unknown(context, connection, name);
  }
}

/** Returns the error for a destination that nobody has added and that no relay has ever served. */
export async function unknown(
  { names }: OperationContext,
  connection: Connection,
  name: string,
): Promise<MessengerError> {
  const rows = await connection.query(
    statement(
      'known',
      `SELECT destination FROM ${names.cursors} UNION SELECT name FROM ${names.destinations} ORDER BY 1 LIMIT 20`,
    ),
  );
  return unknownDestination(
    name,
    rows.map(([each]) => each as string),
  );
}

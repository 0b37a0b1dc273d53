import type { Row, Value } from './database.js';
import { LONGEST_KEY } from './encode.js';
import { literal, type Names } from './names.js';

/** Runs a statement of a rebase's transaction. */
export type Run = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

/** A copy of the log, while the log is empty. */
export interface Copy {
  /** A table with all columns of the log, and `mark`. */
  readonly table: string;
  /** What the log's rows are given: all columns but those that are generated. */
  readonly columns: readonly string[];
}

/** The constraint of migration 6. */
const KEY_LENGTH = 'key_at_most_2000_bytes';

/**
 * Writes the log anew: copies it beside, each row `m` with a `mark`, empties it, and has it filled from the copy. Without an
 * UPDATE or a DELETE, which PostgreSQL refuses of a published table without a replica identity; and an identity of
 * whole rows would need an equality that `json` has not, and a subscriber to read the log once for each row. A subscriber
 * is sent the same: it empties its copy, and fills it. The copy is UNLOGGED: no publication takes it along.
 */
export async function rewriteLog<T>(
  run: Run,
  { messages, copy }: Names,
  { mark, from = '' }: { readonly mark: string; readonly from?: string },
  fill: (copied: Copy) => Promise<T>,
): Promise<T> {
  const [found] = await run(`SELECT json_agg(quote_ident(attname))::text,
  EXISTS (SELECT FROM ${messages} WHERE octet_length(key) > ${String(LONGEST_KEY)})::text FROM pg_attribute
  WHERE attrelid = ${literal(messages)}::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`);
  const [names, long] = found as [string, string];
  await run(`CREATE UNLOGGED TABLE ${copy} AS SELECT m.*, ${mark} AS mark FROM ${messages} m ${from}`);
  await run(`ANALYZE ${copy}`);
  // Of the whole, not of each slice: that of a partition is not sent where its root is published in its place.
  await run(`TRUNCATE ${messages}`);
  // A row is checked whenever it is written: one with a key from before migration 6, also where it was published long ago.
  if (long === 'true') await run(`ALTER TABLE ${messages} DROP CONSTRAINT IF EXISTS ${KEY_LENGTH}`);
  const result = await fill({ table: copy, columns: JSON.parse(names) as string[] });
  if (long === 'true')
    await run(
      `ALTER TABLE ${messages} ADD CONSTRAINT ${KEY_LENGTH} CHECK (octet_length(key) <= ${String(LONGEST_KEY)}) NOT VALID`,
    );
  await run(`DROP TABLE ${copy}`);
  return result;
}

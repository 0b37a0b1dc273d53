import type { Row, Value } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';

/** Runs a statement in the transaction of a rebase. */
export type Run = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

/** A copy of the log, which exists while the log itself is empty. */
export interface Copy {
  /** The name of a table with all columns of the log, and a `mark` column. */
  readonly table: string;
  /** The columns to insert into the log: all except the generated ones. */
  readonly columns: readonly string[];
}

/**
 * Rewrites the log. It copies the log to another table, which also has a `mark` for each row `m`. Then it empties the
 * log, and `fill` inserts the messages again from the copy.
 *
 * It uses no UPDATE or DELETE, because PostgreSQL rejects them on a published table without a replica identity. A
 * replica identity of whole rows would need an equality operator, which `json` lacks, and a subscriber would read the
 * log once for each row. With TRUNCATE and INSERT, a subscriber does the same as the publisher: it empties its copy of
 * the log, and fills it again. The table with the marks is UNLOGGED, so that no publication includes it.
 */
export async function rewriteLog<T>(
  run: Run,
  { messages, settings, copy }: Names,
  { mark, from = '' }: { readonly mark: string; readonly from?: string },
  fill: (copied: Copy) => Promise<T>,
): Promise<T> {
  const log = `${literal(messages)}::regclass`;
  const [found] = await run(`SELECT
  (SELECT json_agg(quote_ident(attname)) FROM pg_attribute WHERE attrelid = ${log} AND attnum > 0 AND NOT attisdropped AND attgenerated = '')::text,
  (SELECT coalesce(json_agg(json_build_array(quote_ident(conname), pg_get_constraintdef(oid))), '[]') FROM pg_constraint
    WHERE conrelid = ${log} AND contype = 'c' AND NOT convalidated)::text`);
  const [columns, limits] = (found as [string, string]).map((text) => JSON.parse(text) as unknown) as [
    string[],
    [name: string, definition: string][],
  ];
  await run(`CREATE UNLOGGED TABLE ${copy} AS SELECT m.*, ${mark} AS mark FROM ${messages} m ${from}`);
  await run(`ANALYZE ${copy}`);
  // Truncate the whole log at once. If the log is published instead of its slices, PostgreSQL does not replicate the
  // TRUNCATE of a slice.
  await run(`TRUNCATE ${messages}`);
  // Drop the limits while the log is filled. PostgreSQL checks them for each row that is written, even for a message
  // that was stored before the migration that added the limits.
  for (const [name] of limits) await run(`ALTER TABLE ${messages} DROP CONSTRAINT ${name}`);
  const result = await fill({ table: copy, columns });
  for (const [name, definition] of limits) await run(`ALTER TABLE ${messages} ADD CONSTRAINT ${name} ${definition}`);
  // Rows that were inserted without the limits must not count as checked.
  await run(
    `UPDATE ${settings} SET value = (SELECT coalesce(max(seq), 0)::text FROM ${messages}) WHERE name = 'limited_after'`,
  );
  await run(`DROP TABLE ${copy}`);
  return result;
}

import type { Row, Value } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';

/** Runs a statement of a rebase's transaction. */
export type Run = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

/** A copy of the log, while the log is empty. */
export interface Copy {
  /** A table with all columns of the log, and `mark`. */
  readonly table: string;
  /** What the log's rows are given: all columns but those that are generated. */
  readonly columns: readonly string[];
}

/**
 * Writes the log anew: copies it beside, each row `m` with a `mark`, empties it, and has it filled from the copy. Without an
 * UPDATE or a DELETE, which PostgreSQL refuses of a published table without a replica identity; and an identity of
 * whole rows would need an equality that `json` has not, and a subscriber to read the log once for each row. A subscriber
 * is sent the same: it empties its copy, and fills it. The copy is UNLOGGED: no publication takes it along.
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
  // Of the whole, not of each slice: that of a partition is not sent where its root is published in its place.
  await run(`TRUNCATE ${messages}`);
  // A limit is asked for of each row that is written, also of one from before the migration that set it.
  for (const [name] of limits) await run(`ALTER TABLE ${messages} DROP CONSTRAINT ${name}`);
  const result = await fill({ table: copy, columns });
  for (const [name, definition] of limits) await run(`ALTER TABLE ${messages} ADD CONSTRAINT ${name} ${definition}`);
  // What was written without a limit must not be taken for what had one.
  await run(
    `UPDATE ${settings} SET value = (SELECT coalesce(max(seq), 0)::text FROM ${messages}) WHERE name = 'limited_after'`,
  );
  await run(`DROP TABLE ${copy}`);
  return result;
}

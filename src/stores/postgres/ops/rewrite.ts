import type { Row, Value } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';

/** Runs a statement in the transaction of a rebase. */
export type Run = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

/** A copy of the log, while the log is empty. */
export interface Copy {
  /** A table with all columns of the log, and `mark`. */
  readonly table: string;
  /** The columns that are inserted into the log: all but the generated ones. */
  readonly columns: readonly string[];
}

/**
 * Writes the log again: copies it to another table, each row `m` with a `mark`, empties it, and has it filled from the
 * copy. It uses no UPDATE or DELETE, which PostgreSQL refuses on a published table without a replica identity. An
 * identity of whole rows would need an equality, which `json` lacks, and a subscriber would read the log once for each
 * row. A subscriber does the same as the publisher: it empties its copy, and fills it again. The copy here is UNLOGGED,
 * so that no publication includes it.
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
  // Truncate the whole log, not each slice: a slice's TRUNCATE is not sent where the root is published in its place.
  await run(`TRUNCATE ${messages}`);
  // A limit is checked for each row that is written, including one from before the migration that added the limit.
  for (const [name] of limits) await run(`ALTER TABLE ${messages} DROP CONSTRAINT ${name}`);
  const result = await fill({ table: copy, columns });
  for (const [name, definition] of limits) await run(`ALTER TABLE ${messages} ADD CONSTRAINT ${name} ${definition}`);
  // Rows that were written without limits must not count as rows that had them.
  await run(
    `UPDATE ${settings} SET value = (SELECT coalesce(max(seq), 0)::text FROM ${messages}) WHERE name = 'limited_after'`,
  );
  await run(`DROP TABLE ${copy}`);
  return result;
}

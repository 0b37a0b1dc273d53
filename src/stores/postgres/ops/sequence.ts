import type { Connection } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';
import { isForeign } from '../schema/provenance.js';
import { isoTime, statement } from '../sql/statement.js';
import { rewriteLog, type Run } from './rewrite.js';

/** Returns the name of the log's sequence. */
export async function sequenceOf(connection: Connection, names: Names): Promise<string> {
  const [row] = await connection.query(
    statement('sequence', `SELECT pg_get_serial_sequence(${literal(names.messages)}, 'seq')`),
  );
  return row?.[0] as string;
}

/** Returns SQL for the last number that was taken from the sequence. */
export function lastDrawn(sequence: string): string {
  return `(SELECT last_value - (NOT is_called)::integer FROM ${sequence})`;
}

/** Returns SQL for the largest sequence number in the tables. */
export function largest(names: Names): string {
  return `greatest(0, (SELECT max(seq) FROM ${names.messages}), (SELECT max(seq) FROM ${names.parked}), (SELECT max(high) FROM ${names.cursors}))`;
}

/**
 * Returns an SQL condition that is true if a message `m` was stored in this cluster. The message's own transaction, or
 * a savepoint in that transaction, wrote the row of such a message.
 */
function isOwn(names: Names): string {
  return `(m.xid < pg_snapshot_xmax(pg_current_snapshot()) AND m.xid::text::bigint > pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 2147483648
      AND age(m.xid::xid) BETWEEN age(m.xmin)
        AND (SELECT age(d.xmin) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
          WHERE d.adrelid = ${literal(names.messages)}::regclass AND a.attname = 'xid'))`;
}

/**
 * Moves the sequence past all stored sequence numbers. Until now, messages may have been stored in this cluster with
 * numbers that copied messages also have or had. Such messages are stored again with new numbers, in order. Otherwise
 * they would look like messages that were delivered long ago.
 */
export async function advanceSequence(run: Run, names: Names, sequence: string): Promise<void> {
  const own = isOwn(names);
  const [row] = await run(`SELECT ${lastDrawn(sequence)}::text, ${largest(names)}::text`);
  const [last, max] = (row as [string, string]).map(Number) as [number, number];
  const since = last < max ? '-infinity' : await storedAgainSince(run, names, own);
  if (since === null) return;
  // Do not use setval, because it is not rolled back. After an interrupted rebase, the next rebase would find nothing
  // to do here.
  await run(`ALTER SEQUENCE ${sequence} RESTART WITH ${String(Math.max(last, max))}`);
  await run(`SELECT nextval(${literal(sequence)})::text`);
  const again = `(m.seq <= ${String(last)} AND m.stored_at >= ${literal(since)}::timestamptz AND ${own}) IS TRUE`;
  const [stored] = await run(`SELECT EXISTS (SELECT FROM ${names.messages} m WHERE ${again})::text`);
  if (stored?.[0] !== 'true') return;
  await rewriteLog(run, names, { mark: again }, async ({ table, columns }) => {
    const all = columns.join(', ');
    await run(
      `INSERT INTO ${names.messages} (${all}) OVERRIDING SYSTEM VALUE SELECT ${all} FROM ${table} WHERE NOT mark`,
    );
    const given = columns.filter((name) => !['xid', 'seq', 'slice'].includes(name)).join(', ');
    await run(
      `INSERT INTO ${names.messages} (${given}) SELECT ${given} FROM ${table} WHERE mark ORDER BY ${table}.seq`,
    );
  });
}

/**
 * Returns the time at which the sequence first assigned a copied number again to a message in this cluster, or null if
 * nothing shows that it did. Even if it did, the sequence can now be past all stored numbers. There are two signs. One
 * sign is two messages with the same number, because a sequence assigns each number only once. The other sign is a
 * message with a copied number whose own transaction wrote its row. It must have been stored after everything that was
 * copied, and after the copied leases had expired. (By chance, a transaction id from the other cluster can also be
 * valid here. Cursors can look copied just because somebody has changed them.)
 */
async function storedAgainSince(run: Run, names: Names, own: string): Promise<string | null> {
  const [row] = await run(`WITH m AS MATERIALIZED (
    SELECT m.seq, m.stored_at, ${own} AS own, m.xid::xid = m.xmin AS exact FROM ${names.messages} m
  ), copied AS (
    SELECT greatest(max(m.seq) FILTER (WHERE NOT m.own), (SELECT max(seq) FROM ${names.parked}), (SELECT max(high) FROM ${names.cursors} c WHERE ${isForeign('c')})) AS seq,
      greatest(max(m.stored_at) FILTER (WHERE NOT m.own), (SELECT max(expires_at) FROM ${names.cursors} c WHERE ${isForeign('c')})) AS until
    FROM m
  ) SELECT ${isoTime(`least(
    (SELECT min(m.stored_at) FROM m JOIN m other ON other.seq = m.seq WHERE m.own AND NOT other.own),
    (SELECT min(m.stored_at) FROM m, copied WHERE m.own AND m.exact AND m.seq <= copied.seq AND m.stored_at > copied.until)
  )`)}`);
  return (row?.[0] as string | null | undefined) ?? null;
}

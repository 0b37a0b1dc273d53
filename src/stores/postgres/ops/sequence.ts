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

/** Returns SQL for the number that was drawn last. */
export function lastDrawn(sequence: string): string {
  return `(SELECT last_value - (NOT is_called)::integer FROM ${sequence})`;
}

/** Returns SQL for the largest number that was certainly drawn. */
export function largest(names: Names): string {
  return `greatest(0, (SELECT max(seq) FROM ${names.messages}), (SELECT max(seq) FROM ${names.parked}), (SELECT max(high) FROM ${names.cursors}))`;
}

/**
 * Returns SQL for whether a message `m` was stored here. The transaction of such a message, or a savepoint in that
 * transaction, wrote its row.
 */
function isOwn(names: Names): string {
  return `(m.xid < pg_snapshot_xmax(pg_current_snapshot()) AND m.xid::text::bigint > pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 2147483648
      AND age(m.xid::xid) BETWEEN age(m.xmin)
        AND (SELECT age(d.xmin) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
          WHERE d.adrelid = ${literal(names.messages)}::regclass AND a.attname = 'xid'))`;
}

/**
 * Moves the sequence past all stored numbers. Before that, messages may have been stored here with numbers that copied
 * messages have or had. These are stored again, in order. Otherwise they would look like messages that were delivered
 * long ago.
 */
export async function advanceSequence(run: Run, names: Names, sequence: string): Promise<void> {
  const own = isOwn(names);
  const [row] = await run(`SELECT ${lastDrawn(sequence)}::text, ${largest(names)}::text`);
  const [last, max] = (row as [string, string]).map(Number) as [number, number];
  const since = last < max ? '-infinity' : await storedAgainSince(run, names, own);
  if (since === null) return;
  // Do not use setval, which is not rolled back. After an interrupted rebase, the next one would find nothing to do
  // here.
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
 * The sequence can be past all stored numbers because it has drawn copied numbers again. This returns when the first
 * message with such a number was stored here, or null if nothing shows that there is one. There are two signs. One sign
 * is two messages with the same number, because a sequence gives each number once. The other sign is a message with
 * such a number whose own transaction wrote its row. That must have happened after everything that was copied and after
 * the copied leases had expired. (By chance, an id of the other cluster can mean something here too. Cursors can look
 * copied just because somebody has changed them.)
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

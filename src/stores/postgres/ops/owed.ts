import type { Names } from '../sql/names.js';
import type { Run } from './rewrite.js';

/** The part of a partition's cursor that shows which messages its destination has published. */
interface Place {
  readonly high: number;
  readonly after: number;
  readonly from: Snapshot;
  readonly to: Snapshot | null;
}

interface Snapshot {
  readonly end: number;
  readonly running: ReadonlySet<number>;
}

/** A set of messages that no cursor distinguishes, so that one of them represents the others. */
export interface Cell {
  readonly name: string;
  /**
   * One digit per destination, in the order of the destinations. The digit is 1 if the destination still has to publish
   * the messages.
   */
  readonly owed: string;
  readonly count: number;
  readonly first: number;
  readonly last: number;
}

/**
 * Returns an SQL expression for the cell of a message `m`, and the tables to join for it. The cell contains the
 * positions of the message's transaction id and sequence number among all ids and sequence numbers in the cursors. It
 * also contains the message's partitions. So each message is examined only once, even with many destinations, and each
 * destination examines one message per cell.
 */
export function cellOf(names: Names, partitions: ReadonlyMap<string, number>): { cell: string; from: string } {
  const number = (xid: string) => `${xid}::text::bigint`;
  const listed = (
    snapshot: string,
  ) => `SELECT x, x + 1 FROM (SELECT ${number('xid')} AS x FROM pg_snapshot_xip(${snapshot}) AS l (xid)) l
      UNION ALL SELECT ${number(`pg_snapshot_xmax(${snapshot})`)}, NULL`;
  const bounds = `(SELECT
    ARRAY(SELECT DISTINCT x FROM (SELECT DISTINCT from_snapshot::text AS s FROM ${names.cursors} UNION SELECT to_snapshot::text FROM ${names.cursors}) s
      CROSS JOIN LATERAL (${listed('s.s::pg_snapshot')}) b (first, second) CROSS JOIN LATERAL (VALUES (first), (second)) v (x) WHERE x IS NOT NULL ORDER BY x) AS xids,
    ARRAY(SELECT DISTINCT s FROM ${names.cursors} c CROSS JOIN LATERAL (VALUES (c.high + 1), (c.after + 1)) v (s) ORDER BY s) AS seqs)`;
  const counts = [...new Set(partitions.values())].map((count) => `m.key_hash % ${String(count)}`);
  return {
    cell: `concat_ws(':', width_bucket(${number('m.xid')}, b.xids), width_bucket(m.seq, b.seqs)${counts.map((each) => `, ${each}`).join('')})`,
    from: `CROSS JOIN ${bounds} b`,
  };
}

/**
 * Returns the cells in a copy of the log, in which each row is marked with its cell. Each cell shows which destinations
 * still have to publish its messages.
 */
export async function cellsIn(
  run: Run,
  names: Names,
  copy: string,
  partitions: ReadonlyMap<string, number>,
): Promise<Cell[]> {
  const places = new Map<string, Place[]>([...partitions.keys()].map((destination) => [destination, []]));
  const rows = await run(
    `SELECT destination, partition::text, high::text, after::text, from_snapshot::text, to_snapshot::text FROM ${names.cursors}`,
  );
  for (const [destination, partition, high, after, from, to] of rows as readonly (readonly [
    string,
    string,
    string,
    string,
    string,
    string | null,
  ])[]) {
    const place = { high: Number(high), after: Number(after), from: decode(from), to: to === null ? null : decode(to) };
    const own = places.get(destination);
    if (own) own[Number(partition)] = place;
  }
  const cursors = [...places.values()];
  const found = await run(
    `SELECT mark, count(*)::text, min(seq)::text, max(seq)::text, min(xid::text::bigint)::text, min(key_hash)::text FROM ${copy} GROUP BY mark`,
  );
  return found.map((row) => {
    const [count, first, last, xid, hash] = row.slice(1).map(Number) as [number, number, number, number, number];
    const digit = (each: readonly Place[]) => (isDelivered(each[hash % each.length] as Place, xid, first) ? '0' : '1');
    return { name: row[0] as string, owed: cursors.map(digit).join(''), count, first, last };
  });
}

/**
 * Transaction ids are 64 bits wide, but it would take a thousand years to reach an id that is too large for a
 * JavaScript number.
 */
function decode(snapshot: string): Snapshot {
  const [, end, running = ''] = snapshot.split(':');
  return { end: Number(end), running: new Set(running === '' ? [] : running.split(',').map(Number)) };
}

function isVisible({ end, running }: Snapshot, xid: number): boolean {
  return xid < end && !running.has(xid);
}

function isDelivered({ high, after, from, to }: Place, xid: number, seq: number): boolean {
  return seq <= high && (isVisible(from, xid) || (to !== null && seq <= after && isVisible(to, xid)));
}

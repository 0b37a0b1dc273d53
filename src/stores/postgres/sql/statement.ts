import type { Statement } from './database.js';
import { fnv1a } from './hash.js';
import { literal } from './names.js';

/** Gives a statement a name that is unique to its text, as `pg` requires for prepared statements. */
export function statement(kind: string, text: string): Statement {
  // The hash only has to distinguish the statements of the few stores that share a connection.
  return { name: `messenger_${kind}_${fnv1a(text).toString(16)}`, text };
}

/**
 * Settings for statements that search the side table or a slice. They make PostgreSQL use an index, even if its
 * statistics suggest otherwise.
 */
export const INDEX_SETTINGS = [
  'SET LOCAL enable_seqscan = off',
  'SET LOCAL enable_bitmapscan = off',
  'SET LOCAL enable_hashjoin = off',
  'SET LOCAL enable_mergejoin = off',
  'SET LOCAL enable_sort = off',
  'SET LOCAL jit = off',
] as const;

/**
 * Returns SQL for the seconds since 1970, with all digits. It avoids `date_part`, whose number of digits depends on the
 * `extra_float_digits` setting.
 */
export function epoch(time: string): string {
  return `extract(epoch FROM ${time})::text`;
}

/**
 * Returns SQL for whole milliseconds since 1970, and null for an infinite time. The `extra_float_digits` setting does
 * not change the result.
 */
export function instant(time: string): string {
  return `CASE WHEN isfinite(${time}) THEN (date_part('epoch', ${time}) * 1000)::bigint END::text`;
}

/** Returns SQL for milliseconds, with all digits. */
export function milliseconds(time: string): string {
  return `(extract(epoch FROM ${time}) * 1000)::text`;
}

/** Returns SQL for a time as text that PostgreSQL reads back as the same time under any `DateStyle` and `TimeZone`. */
export function isoTime(time: string): string {
  return `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/**
 * Returns an SQL condition that is true if a destination publishes a message. A destination publishes the messages that
 * are addressed to it. It also publishes messages without an address that have one of its topics. If `topics` is null,
 * they can have any topic.
 */
export function isFor(message: string, destination: string, topics: string): string {
  return `coalesce(${message}.destination = ${destination}, ${topics} IS NULL OR ${message}.topic = ANY(${topics}))`;
}

/**
 * Returns an SQL condition that is true if a message belongs to a partition in the array `share`. If `share` is null,
 * it is true for all partitions. `partitions` is the number of partitions.
 */
export function inShare(message: string, share: string, partitions: string): string {
  return `(${share}::integer[] IS NULL OR ${message}.key_hash % ${partitions}::integer = ANY(${share}::integer[]))`;
}

/**
 * Locks a destination by its name ($1) before rows for it are inserted, because the rows have no unique index
 * (migration 2).
 */
export function lockDestination(cursors: string): Statement {
  return statement(
    'making',
    `SELECT pg_advisory_xact_lock(hashtextextended(${literal(cursors)} || $1::text, 0))::text`,
  );
}

/**
 * An SQL condition that is true if a message in the side table has only waited for its delivery time, and has not been
 * tried since. It reads columns that do not change until the message is parked again, so until then the message is
 * always counted in the same state.
 */
export const untried = `(p.reason = 'delayed' OR (p.reason = 'straggler' AND p.deliver_at > p.parked_at)) IS TRUE`;

/** Returns an array in the text format that PostgreSQL reads. */
export function arrayText(values: readonly (string | number)[]): string {
  return `{${values.map((value) => `"${String(value).replace(/["\\]/g, '\\$&')}"`).join(',')}}`;
}

import type { Statement } from './database.js';
import { fnv1a } from './hash.js';
import { literal } from './names.js';

/** A statement whose name is one-to-one with its text, as `pg` demands of prepared statements. */
export function statement(kind: string, text: string): Statement {
  // The hash need only tell apart the statements of the few stores that share a connection.
  return { name: `messenger_${kind}_${fnv1a(text).toString(16)}`, text };
}

/**
 * Settings for statements that search the side table or a slice. With them, these statements use an index, whatever the
 * statistics say.
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
 * Seconds since 1970 with all their digits. How many digits `date_part` shows depends on the setting
 * `extra_float_digits`.
 */
export function epoch(time: string): string {
  return `extract(epoch FROM ${time})::text`;
}

/** Whole milliseconds since 1970, whatever the setting `extra_float_digits` is; null for an infinite time. */
export function instant(time: string): string {
  return `CASE WHEN isfinite(${time}) THEN (date_part('epoch', ${time}) * 1000)::bigint END::text`;
}

/** Milliseconds with all their digits. */
export function milliseconds(time: string): string {
  return `(extract(epoch FROM ${time}) * 1000)::text`;
}

/** A time as text that is read back as the same time, whatever the settings `DateStyle` and `TimeZone` are. */
export function isoTime(time: string): string {
  return `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/**
 * Whether a destination publishes a message: one that is addressed to it, or one that is addressed to nobody and has
 * one of its topics (null: any topic).
 */
export function isFor(message: string, destination: string, topics: string): string {
  return `coalesce(${message}.destination = ${destination}, ${topics} IS NULL OR ${message}.topic = ANY(${topics}))`;
}

/**
 * Whether a message belongs to a partition in the array `share` (null: all partitions), if there are `partitions`
 * partitions.
 */
export function inShare(message: string, share: string, partitions: string): string {
  return `(${share}::integer[] IS NULL OR ${message}.key_hash % ${partitions}::integer = ANY(${share}::integer[]))`;
}

/** Locks a destination by its name ($1) before its rows are inserted. The rows have no unique index (migration 2). */
export function lockDestination(cursors: string): Statement {
  return statement(
    'making',
    `SELECT pg_advisory_xact_lock(hashtextextended(${literal(cursors)} || $1::text, 0))::text`,
  );
}

/**
 * Whether a message of the side table has only waited for its time, and has not been tried since. This is read from
 * what was stored when the message was parked, so the message stays as it was counted until it is parked again.
 */
export const untried = `(p.reason = 'delayed' OR (p.reason = 'straggler' AND p.deliver_at > p.parked_at)) IS TRUE`;

/** An array as text that PostgreSQL reads. */
export function arrayText(values: readonly (string | number)[]): string {
  return `{${values.map((value) => `"${String(value).replace(/["\\]/g, '\\$&')}"`).join(',')}}`;
}

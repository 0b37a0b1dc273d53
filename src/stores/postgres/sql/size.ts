import { MessengerError } from '../../../core/errors.js';

/**
 * The largest message, in bytes, that a relay can read. The server sends a payload as text, with two characters for
 * each byte, and Node's longest string has 2^29 - 24 characters. `encode.ts` no longer stores messages that large. This
 * limit is for messages that were stored before `encode.ts` had its own limit.
 */
export const MOST_READ = 255 * 1024 * 1024;

/** If a message is too large, the relay does not read an id, topic or key that has more bytes than this. */
const LONGEST_SHOWN = 4_000;

/**
 * Returns SQL for the size of a payload in bytes. The SQL avoids reading data that PostgreSQL stores out of line. For
 * `bytea`, PostgreSQL knows the size. For `json` it knows only the stored size. Compression can make the stored size as
 * small as a 255th of the real size. So if the stored size exceeds 256 KiB, the SQL reads and measures the payload.
 */
export function payloadBytes(payload: string, jsonPayload: boolean): string {
  if (!jsonPayload) return `octet_length(${payload})`;
  const kept = `pg_column_size(${payload})`;
  return `(CASE WHEN ${kept} <= ${String(256 * 1024)} THEN ${kept} ELSE octet_length(${payload}::text) END)`;
}

/**
 * Returns SQL for the total size in bytes of all fields that are read from a message. For metadata, it uses the stored
 * size.
 */
export function messageBytes(table: string, jsonPayload: boolean): string {
  const text = (field: string) => `coalesce(octet_length(${table}.${field}), 0)`;
  const payload = `${payloadBytes(`${table}.payload`, jsonPayload)}::bigint`;
  return `${payload} + pg_column_size(${table}.metadata) + ${text('id')} + ${text('topic')} + ${text('key')}`;
}

/** An SQL expression for each field, which replaces the column with that name. */
export interface Fields {
  readonly id: string;
  readonly topic: string;
  readonly key: string;
  readonly metadata: string;
  readonly payload: string;
}

/** Returns the fields to read from a message of this size, without the fields that make the message too large. */
export function fieldsUpTo(table: string, size: string, most = String(MOST_READ)): Fields {
  const unless = (field: string, instead: string) =>
    `CASE WHEN ${size} > ${String(MOST_READ)} AND octet_length(${table}.${field}) > ${String(LONGEST_SHOWN)} THEN ${instead} ELSE ${table}.${field} END`;
  return {
    id: unless('id', `left(${table}.id, 100)`),
    topic: unless('topic', 'NULL'),
    key: unless('key', 'NULL'),
    metadata: `CASE WHEN ${size} > ${most} THEN '{}' ELSE ${table}.metadata END`,
    payload: `CASE WHEN ${size} > ${most} THEN NULL ELSE ${table}.payload END`,
  };
}

/** Metadata with at most this stored size are always read, even if the read has a lower limit. */
const SMALL_METADATA = 4 * 1024;

/**
 * Replaces metadata that were left out. It is followed by the size of the message. No JSON begins with this character.
 */
export const LEFT_OUT = '#';

/**
 * Returns the fields to read from a message that was stored after the size limits took effect. A payload or metadata
 * above the limit for this read is left out. The combined size of both then replaces the metadata. Each function call
 * in this SQL adds 1 us to a poll, even if the poll finds nothing.
 */
export function fieldsWithin(table: string, most: string, jsonPayload: boolean): Fields {
  const payload = payloadBytes(`${table}.payload`, jsonPayload);
  const metadata = `pg_column_size(${table}.metadata)`;
  const isLarger = `${payload} > ${most} OR ${metadata} > greatest(${most}, ${String(SMALL_METADATA)})`;
  return {
    id: `${table}.id`,
    topic: `${table}.topic`,
    key: `${table}.key`,
    metadata: `CASE WHEN ${isLarger} THEN concat('${LEFT_OUT}', ${payload} + ${metadata}) ELSE ${table}.metadata::text END`,
    payload: `CASE WHEN ${payload} > ${most} THEN NULL ELSE ${table}.payload END`,
  };
}

/** The limits that the log checks when it stores a message (see migrations 6 and 8). */
export const LIMITS = [
  'key_at_most_2000_bytes',
  'id_at_most_4000_bytes',
  'topic_at_most_4000_bytes',
  'payload_at_most_64_mib',
  'metadata_at_most_1_mib',
] as const;

/** Returns the error for a message of this size, which becomes a dead letter. */
export function tooLargeToRead(id: string, bytes: number): MessengerError {
  return new MessengerError(
    'INVALID_MESSAGE',
    `message ${id} has ${String(bytes)} bytes, but at most ${String(MOST_READ)} can be read. The table of parked messages keeps the whole message, and requeueing it does not help: read it from that table with SQL, or discard it`,
  );
}

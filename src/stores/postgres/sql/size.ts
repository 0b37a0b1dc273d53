import { MessengerError } from '../../../core/errors.js';

/**
 * How many bytes a message may have in all to be read. The server sends a payload as text, two characters for each
 * byte, and Node's longest string has 2^29 - 24 characters. Messages that large are no longer stored (see `encode.ts`);
 * this limit is for those that were stored before.
 */
export const MOST_READ = 255 * 1024 * 1024;

/** When a message is too large, its id, topic and key are left out if they are longer than this. */
const LONGEST_SHOWN = 4_000;

/**
 * The bytes of a payload, without reading what is stored out of line. For `bytea` PostgreSQL knows them. For `json` it
 * knows only the stored size, which is at least a 255th of the real one because of compression. So from 256 KiB of
 * stored size on, the payload is read to measure it.
 */
export function payloadBytes(payload: string, jsonPayload: boolean): string {
  if (!jsonPayload) return `octet_length(${payload})`;
  const kept = `pg_column_size(${payload})`;
  return `(CASE WHEN ${kept} <= ${String(256 * 1024)} THEN ${kept} ELSE octet_length(${payload}::text) END)`;
}

/** The bytes of everything that is read of a message. Its metadata count with their stored size. */
export function messageBytes(table: string, jsonPayload: boolean): string {
  const text = (field: string) => `coalesce(octet_length(${table}.${field}), 0)`;
  const payload = `${payloadBytes(`${table}.payload`, jsonPayload)}::bigint`;
  return `${payload} + pg_column_size(${table}.metadata) + ${text('id')} + ${text('topic')} + ${text('key')}`;
}

/** An expression for each field, in place of the column with its name. */
export interface Fields {
  readonly id: string;
  readonly topic: string;
  readonly key: string;
  readonly metadata: string;
  readonly payload: string;
}

/** The fields of a message of this size, without those that make it too large. */
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

/** Metadata whose stored size is up to this are read, whatever limit a read has. */
const SMALL_METADATA = 4 * 1024;

/** Stands in place of the metadata, before the size of a message. No JSON begins with it. */
export const LEFT_OUT = '#';

/**
 * The fields of a message that was stored under the limits. If the payload or the metadata are larger than this read
 * wants, they are left out, and the size of both stands in place of the metadata. Each function in this SQL costs a
 * poll 1 us, whatever it finds.
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

/** The limits that the log checks when a message is stored (see migrations 6 and 8). */
export const LIMITS = [
  'key_at_most_2000_bytes',
  'id_at_most_4000_bytes',
  'topic_at_most_4000_bytes',
  'payload_at_most_64_mib',
  'metadata_at_most_1_mib',
] as const;

/** Why a message of so many bytes is given up. */
export function tooLargeToRead(id: string, bytes: number): MessengerError {
  return new MessengerError(
    'INVALID_MESSAGE',
    `message ${id} has ${String(bytes)} bytes, and no more than ${String(MOST_READ)} can be read: it is kept whole in the table of what was parked, and no requeue helps. Take it from there in SQL, or discard it`,
  );
}

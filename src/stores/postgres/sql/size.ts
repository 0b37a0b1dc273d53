import { MessengerError } from '../../../core/errors.js';

/**
 * How many bytes a message may have to be read, all in all. The server sends a payload as text, two characters for each
 * byte, and Node's longest string has 2^29 - 24. Nothing so large is stored any more (see `encode.ts`): this is for
 * what was there before.
 */
export const MOST_READ = 255 * 1024 * 1024;

/** Of what is read of a message that is larger: an id, a topic and a key that are longer than that are left out. */
const LONGEST_SHOWN = 4_000;

/**
 * The bytes of a payload, told without reading what is stored out of line: of `bytea`. Of `json` nothing tells but the
 * size that it is kept with, compressed to a 255th at the least: from there on it is read.
 */
export function payloadBytes(payload: string, jsonPayload: boolean): string {
  if (!jsonPayload) return `octet_length(${payload})`;
  const kept = `pg_column_size(${payload})`;
  return `(CASE WHEN ${kept} <= ${String(256 * 1024)} THEN ${kept} ELSE octet_length(${payload}::text) END)`;
}

/** The bytes of all that is read of a message; of its metadata, those that are kept. */
export function messageBytes(table: string, jsonPayload: boolean): string {
  const text = (field: string) => `coalesce(octet_length(${table}.${field}), 0)`;
  const payload = `${payloadBytes(`${table}.payload`, jsonPayload)}::bigint`;
  return `${payload} + pg_column_size(${table}.metadata) + ${text('id')} + ${text('topic')} + ${text('key')}`;
}

/** What stands for a field in place of the column of its name. */
export interface Fields {
  readonly id: string;
  readonly topic: string;
  readonly key: string;
  readonly metadata: string;
  readonly payload: string;
}

/** The fields of a message of such a size, without those that make it too large. */
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

/** Metadata up to that size, as they are kept, are read whatever is wanted. */
const SMALL_METADATA = 4 * 1024;

/** What stands before the size of a message in place of its metadata. No JSON begins with it. */
export const LEFT_OUT = '#';

/**
 * The same of a message that had the limits of what is stored: without its payload and its metadata where one of them is
 * larger than is wanted now, and with the size of both in place of the metadata. Each function in it costs a poll 1 us,
 * whatever it finds.
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

/** The limits that are asked for when a message is stored: see migrations 6 and 8. */
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

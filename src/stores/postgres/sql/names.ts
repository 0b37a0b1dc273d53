import { describe } from '../../../core/util/describe.js';
import { MessengerError } from '../../../core/errors.js';

/** The number of slices in the log (migration 1). */
export const SLICES = 8;

/** The quoted, schema-qualified names of all database objects of a store. */
export interface Names {
  readonly schema: string;
  readonly prefix: string;
  readonly messages: string;
  readonly cursors: string;
  readonly claims: string;
  readonly parked: string;
  readonly settings: string;
  readonly destinations: string;
  readonly relays: string;
  readonly inbox: string;
  readonly migrations: string;
  /** The table where a rebase temporarily keeps a copy of the log. No other transaction ever sees this table. */
  readonly copy: string;
  /** The function that stores messages (migration 3). */
  readonly store: string;
  /** The function that stores messages if some of them have a destination (migration 4). */
  readonly storeAddressed: string;
  /** The procedure that stores messages through an application's handle (migration 7). */
  readonly storeInTransaction: string;
  /** The procedure that receives messages through an application's handle (migration 7). */
  readonly receiveInTransaction: string;
  /** The index on the keys in the side table. PostgreSQL chose its name (migration 1). */
  readonly parkedKeys: string;
  /** The primary key of the cursors (migration 1). This name does not include the schema. */
  readonly cursorsKey: string;
  /** The index on the cursors (migration 2). PostgreSQL chose its name. */
  readonly cursorsPlaces: string;
  /** The replica identity of the cursors (migration 9). This name does not include the schema. */
  readonly cursorsIdentity: string;
  slice(n: number): string;
}

/**
 * PostgreSQL truncates identifiers to 63 bytes. The longest suffix in the names that PostgreSQL gives to indexes needs
 * 24 bytes.
 */
const MAX_PREFIX_BYTES = 32;

/** @throws MessengerError `INVALID_OPTION` for names that PostgreSQL would truncate or reject. */
export function namesOf(schema: string, prefix: string): Names {
  assertIdentifier(schema, 'schema', 63, false);
  assertIdentifier(prefix, 'tablePrefix', MAX_PREFIX_BYTES, true);
  const table = (name: string) => `${quote(schema)}.${quote(prefix + name)}`;
  return {
    schema,
    prefix,
    messages: table('messages'),
    cursors: table('cursors'),
    claims: table('claims'),
    parked: table('parked'),
    settings: table('settings'),
    destinations: table('destinations'),
    relays: table('relays'),
    migrations: table('migrations'),
    inbox: table('inbox'),
    copy: table('messages_copy'),
    store: table('store'),
    storeAddressed: table('store_addressed'),
    storeInTransaction: table('store_in_transaction'),
    receiveInTransaction: table('receive_in_transaction'),
    parkedKeys: table('parked_destination_key_seq_idx'),
    cursorsKey: quote(`${prefix}cursors_pkey`),
    cursorsPlaces: `${quote(schema)}.${quote(`${cut(`${prefix}cursors`, 37)}_destination_partition_idx`)}`,
    cursorsIdentity: quote(`${prefix}cursors_identity`),
    slice: (n) => table(`messages_${String(n)}`),
  };
}

/** Returns an identifier in double quotes. The result is safe for any characters. */
export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** Returns a string literal. The literal is safe for any characters and for any `standard_conforming_strings`. */
export function literal(value: string): string {
  const quoted = `'${value.replaceAll("'", "''")}'`;
  return value.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

/**
 * Truncates a table's name as PostgreSQL does when it names an index. The result has at most this many bytes, and ends
 * with a whole character.
 */
function cut(name: string, bytes: number): string {
  let end = name.length;
  while (new TextEncoder().encode(name.slice(0, end)).byteLength > bytes || /[\uD800-\uDBFF]$/.test(name.slice(0, end)))
    end -= 1;
  return name.slice(0, end);
}

function assertIdentifier(value: unknown, option: string, maxBytes: number, mayBeEmpty: boolean): void {
  const fits =
    typeof value === 'string' &&
    (mayBeEmpty || value !== '') &&
    !value.includes('\u0000') &&
    new TextEncoder().encode(value).byteLength <= maxBytes;
  if (!fits) {
    throw new MessengerError(
      'INVALID_OPTION',
      `${option} must be ${mayBeEmpty ? 'a' : 'a non-empty'} string of at most ${String(maxBytes)} bytes, got ${describe(value)}`,
    );
  }
}

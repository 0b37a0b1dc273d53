import { columnsOf } from '../sql/columns.js';
import type { Row } from '../sql/database.js';
import { fnv1a } from '../sql/hash.js';
import type { Names } from '../sql/names.js';

/**
 * What the writers and the sleeping relays of one store agree on, so that a writer notifies only a sleeping relay.
 * NOTIFY makes all commits of a cluster wait in line.
 *
 * A sleeping relay holds, or waits for, the advisory locks `(lock, slot)` of its partitions, exclusively. A writer
 * tries to take a shared lock on the slots of its messages until it commits. If it gets the locks, no relay sleeps yet,
 * and a relay that falls asleep now is granted the lock after the writer has committed. If it does not get them, it
 * notifies.
 */
export interface WakeKeys {
  /** The first of the two integers of every advisory lock: a hash of the names of schema and table. */
  readonly lock: number;
  /** How many different second integers there are. The one of a message is its partition modulo this number. */
  readonly slots: number;
  /** The channel of the notifications. Their payload is a slot. */
  readonly channel: string;
  readonly partitions: number;
}

/**
 * A writer holds one lock per slot, and by default the server's lock table has room for 64 per connection. A store of
 * 1,024 partitions must not fill that table.
 */
const MAX_SLOTS = 16;

export function wakeKeys(names: Names, partitions: number): WakeKeys {
  const hash = fnv1a(names.messages);
  return {
    lock: hash | 0,
    slots: Math.min(partitions, MAX_SLOTS),
    channel: `messenger_outbox_${hash.toString(16)}`,
    partitions,
  };
}

/** The beginning of the text that stands for a transaction (migration 7). */
export const TRANSACTION = 'messenger-transaction:';

/** The statements that store messages, and that wake sleeping relays if there are `keys`. */
export interface Storing {
  /**
   * The server refuses this statement outside a transaction. $1: the messages as a JSON array, because every client
   * binds JSON text in the same way. $2: the text that the last call for the same transaction returned; empty if there
   * was none; null if this is known to run in a transaction. Returns a text that stands for the transaction.
   */
  inTransaction(addressed: boolean): string;
  /** For a batch, which is a transaction by itself. $1 is the same as above. */
  inBatch(addressed: boolean): string;
}

/** The messages, or an error (see migration 7). In an expression, only a failing cast can raise an error. */
const UNALTERED = `CASE WHEN pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) 'UTF8' OR pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) 'SQL_ASCII'
  AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY ('{UTF8,SQL_ASCII}'::pg_catalog.name[]) THEN $1::pg_catalog.text
  ELSE pg_catalog.concat('messenger-outbox: texts would be altered, since client_encoding is ', pg_catalog.pg_client_encoding())::pg_catalog.int4::pg_catalog.text END`;

export function storing(names: Names, jsonPayload: boolean, keys: WakeKeys | undefined): Storing {
  const wake = keys
    ? `${String(keys.lock)}, ${String(keys.partitions)}, ${String(keys.slots)}, '${keys.channel}'`
    : 'NULL, 1, 1, NULL';
  const how = `'${jsonPayload ? 'json' : 'bytea'}', ${wake}`;
  return {
    inTransaction: (addressed) =>
      `CALL ${names.storeInTransaction}($1::pg_catalog.text, ${how}, ${String(addressed)}, $2::pg_catalog.text, NULL)`,
    inBatch: (addressed) => `SELECT ${addressed ? names.storeAddressed : names.store}(${UNALTERED}, ${how})`,
  };
}

/** How a relay that falls asleep finds a slot. */
type SlotState =
  /** This relay holds the slot from now on. */
  | 'held'
  /** Transactions that have stored messages are open. */
  | 'storing'
  /** Another relay holds the slot or waits for it, so writers notify. */
  | 'sleeping';

const SLOT = columnsOf('slot', 'state');

/** Takes the slots that are free (see `slotsIn`). */
export function takeSlots({ lock }: WakeKeys, slots: readonly number[]): string {
  const key = `${String(lock)}, slot`;
  const state = `CASE WHEN pg_try_advisory_lock(${key}) THEN 'held'
    WHEN pg_try_advisory_lock_shared(${key}) THEN CASE WHEN pg_advisory_unlock_shared(${key}) THEN 'storing' END
    ELSE 'sleeping' END`;
  return `SELECT ${SLOT.list({ slot: 'slot::text', state })}
  FROM unnest('{${slots.join(',')}}'::integer[]) AS slot`;
}

/** The slots that the rows of `takeSlots` show in a state. */
export function slotsIn(rows: readonly Row[], state: SlotState): number[] {
  const { at } = SLOT;
  return rows.filter((row) => row[at.state] === state).map((row) => Number(row[at.slot]));
}

/**
 * Waits for a slot, for at most `ms` milliseconds. A statement holds a snapshot, so an endless wait would hold back
 * vacuum. The block catches the timeout, because every error would be written to the server's log.
 */
export function awaitSlot({ lock }: WakeKeys, slot: number, ms: number): string {
  return `DO $$ BEGIN
  PERFORM set_config('lock_timeout', '${String(ms)}', true), pg_advisory_lock(${String(lock)}, ${String(slot)});
EXCEPTION WHEN lock_not_available THEN NULL; END $$`;
}

/** Gives back all slots, however often each was taken. */
export const RELEASE_SLOTS = 'SELECT pg_advisory_unlock_all() IS NULL';

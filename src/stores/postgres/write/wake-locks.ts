import { columnsOf } from '../sql/columns.js';
import type { Row } from '../sql/database.js';
import { fnv1a } from '../sql/hash.js';
import type { Names } from '../sql/names.js';

/**
 * The lock keys that a store's writers and sleeping relays share. With these locks, a writer notifies a relay only if
 * the relay is sleeping. Writers avoid unnecessary notifications, because NOTIFY makes all commits in a cluster wait
 * for one another.
 *
 * A sleeping relay holds, or waits for, exclusive advisory locks `(lock, slot)` for its partitions. A writer tries to
 * take shared locks on the slots of its messages, and keeps them until it commits. If the writer gets the locks, no
 * relay is sleeping yet. A relay that falls asleep now gets its lock after the writer has committed. If the writer does
 * not get the locks, it sends a notification.
 */
export interface WakeKeys {
  /** The first of the two integers in every advisory lock. It is a hash of the schema and table names. */
  readonly lock: number;
  /**
   * How many different second integers there are. For a message, the second integer is its partition modulo this
   * number.
   */
  readonly slots: number;
  /** The channel for notifications. The payload of a notification is a slot. */
  readonly channel: string;
  readonly partitions: number;
}

/**
 * A writer holds one lock per slot. By default, the server's lock table has room for 64 locks per connection, and a
 * store with 1,024 partitions must not fill that table.
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

/** The beginning of the string that identifies a transaction (migration 7). */
export const TRANSACTION = 'messenger-transaction:';

/** The statements that store messages. With `keys`, they also wake sleeping relays. */
export interface Storing {
  /**
   * Returns a statement that the server rejects outside a transaction. $1 is the messages as a JSON array. It is JSON,
   * because every client binds JSON text in the same way. $2 is the string that the last call in the same transaction
   * returned. It is empty if there was no such call, and null if the caller knows that a transaction is open. The
   * statement returns a string that identifies the transaction.
   */
  inTransaction(addressed: boolean): string;
  /** Returns a statement for a batch that is a transaction by itself. $1 is the same as above. */
  inBatch(addressed: boolean): string;
}

/**
 * SQL for the messages. It raises an error if the server would alter their text (see migration 7). In an expression,
 * only a failing cast can raise an error.
 */
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

/** The state of a slot when a relay falls asleep. */
type SlotState =
  /** This relay holds the slot from now on. */
  | 'held'
  /** Transactions that have stored messages are still open. */
  | 'storing'
  /** Another relay holds the slot or waits for it, so writers already send notifications. */
  | 'sleeping';

const SLOT = columnsOf('slot', 'state');

/** Returns SQL that takes the free slots (see `slotsIn`). */
export function takeSlots({ lock }: WakeKeys, slots: readonly number[]): string {
  const key = `${String(lock)}, slot`;
  const state = `CASE WHEN pg_try_advisory_lock(${key}) THEN 'held'
    WHEN pg_try_advisory_lock_shared(${key}) THEN CASE WHEN pg_advisory_unlock_shared(${key}) THEN 'storing' END
    ELSE 'sleeping' END`;
  return `SELECT ${SLOT.list({ slot: 'slot::text', state })}
  FROM unnest('{${slots.join(',')}}'::integer[]) AS slot`;
}

/** Returns the slots that have this state in the rows of `takeSlots`. */
export function slotsIn(rows: readonly Row[], state: SlotState): number[] {
  const { at } = SLOT;
  return rows.filter((row) => row[at.state] === state).map((row) => Number(row[at.slot]));
}

/**
 * Returns SQL that waits for a slot, but for at most `ms` milliseconds. A statement holds a snapshot, so an endless
 * wait would hold back vacuum. The block catches the timeout, because otherwise the server would write every timeout to
 * its log.
 */
export function awaitSlot({ lock }: WakeKeys, slot: number, ms: number): string {
  return `DO $$ BEGIN
  PERFORM set_config('lock_timeout', '${String(ms)}', true), pg_advisory_lock(${String(lock)}, ${String(slot)});
EXCEPTION WHEN lock_not_available THEN NULL; END $$`;
}

/** Releases all slots, even if a slot was taken several times. */
export const RELEASE_SLOTS = 'SELECT pg_advisory_unlock_all() IS NULL';

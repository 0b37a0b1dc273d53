import { columnsOf } from '../sql/columns.js';
import type { Row } from '../sql/database.js';
import { fnv1a } from '../sql/hash.js';
import type { Names } from '../sql/names.js';

/**
 * What the writers and the sleeping relays of one store agree on, so that a writer notifies nobody but a
 * relay that sleeps: NOTIFY puts all commits of a cluster in a line.
 *
 * A relay that sleeps holds, or waits for, the advisory locks `(lock, slot)` of its partitions,
 * exclusively. A writer tries to share those of its messages until it commits. Where it can, no relay
 * sleeps yet, and one that falls asleep now is granted the lock when the writer has committed. Where it can
 * not, it notifies.
 */
export interface WakeKeys {
  /** The first of the two integers of every advisory lock: made of the names of schema and table. */
  readonly lock: number;
  /** How many second integers there are: that of a message is its partition modulo this. */
  readonly slots: number;
  /** The channel. A payload is a slot. */
  readonly channel: string;
  readonly partitions: number;
}

/**
 * A writer holds one lock per slot, and the server's table of locks has room for 64 per connection by
 * default: a store of 1,024 partitions must not fill it.
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

/** What a text begins with that stands for a transaction (migration 7). */
export const TRANSACTION = 'messenger-transaction:';

/** The statements that store messages, and wake sleeping relays where there are `keys`. */
export interface Storing {
  /**
   * Refused by the server outside of a transaction. $1: the messages as a JSON array, since JSON text is bound alike by every
   * client; $2: what the last call for the same transaction returned, empty where there was none, or null where it is known
   * that this runs in a transaction. Returns a text that stands for the transaction.
   */
  inTransaction(addressed: boolean): string;
  /** For a batch, which is a transaction by itself. $1 as above. */
  inBatch(addressed: boolean): string;
}

/** The messages, or an error: see migration 7. A cast that fails is what PostgreSQL has to raise one. */
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

/** What a slot is found to be by a relay that falls asleep. */
type SlotState =
  /** Held by this relay from now on. */
  | 'held'
  /** Transactions that have stored messages are open. */
  | 'storing'
  /** Held, or waited for, by another relay: writers notify. */
  | 'sleeping';

const SLOT = columnsOf('slot', 'state');

/** Takes the slots that can be had: see `slotsIn`. */
export function takeSlots({ lock }: WakeKeys, slots: readonly number[]): string {
  const key = `${String(lock)}, slot`;
  const state = `CASE WHEN pg_try_advisory_lock(${key}) THEN 'held'
    WHEN pg_try_advisory_lock_shared(${key}) THEN CASE WHEN pg_advisory_unlock_shared(${key}) THEN 'storing' END
    ELSE 'sleeping' END`;
  return `SELECT ${SLOT.list({ slot: 'slot::text', state })}
  FROM unnest('{${slots.join(',')}}'::integer[]) AS slot`;
}

/** Those of the rows of `takeSlots` that were found in a state. */
export function slotsIn(rows: readonly Row[], state: SlotState): number[] {
  const { at } = SLOT;
  return rows.filter((row) => row[at.state] === state).map((row) => Number(row[at.slot]));
}

/**
 * Waits for a slot, at most `ms` milliseconds: a statement has a snapshot, and an endless wait would hold
 * vacuum back. In a block that catches the timeout, since every error would stand in the server's log.
 */
export function awaitSlot({ lock }: WakeKeys, slot: number, ms: number): string {
  return `DO $$ BEGIN
  PERFORM set_config('lock_timeout', '${String(ms)}', true), pg_advisory_lock(${String(lock)}, ${String(slot)});
EXCEPTION WHEN lock_not_available THEN NULL; END $$`;
}

/** Gives back all slots, however often each was taken. */
export const RELEASE_SLOTS = 'SELECT pg_advisory_unlock_all() IS NULL';

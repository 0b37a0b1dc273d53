import { fnv1a } from './hash.js';
import type { Names } from './names.js';

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

/** As `key_hash` is generated (migration 1), over the columns of `m`. */
const KEY_HASH = `('x' || left(encode(sha256(decode(replace(coalesce(m.key, m.id), '\\', '\\\\'), 'escape')), 'hex'), 4))::bit(16)::integer`;

/**
 * The statement that stores messages, which stands for its rows as `m`, made to wake sleeping relays. The
 * condition is true for every row: it is there for what it does, in the one statement that a writer sends,
 * and needs no right to read what was written.
 */
export function notifying(text: string, { lock, slots, channel, partitions }: WakeKeys): string {
  const slot = `(${KEY_HASH}) % ${String(partitions)} % ${String(slots)}`;
  return `${text}
  WHERE CASE WHEN pg_try_advisory_xact_lock_shared(${String(lock)}, ${slot}) THEN true
    ELSE coalesce(pg_notify('${channel}', (${slot})::text)::text, '') IS NOT NULL END`;
}

/** What a slot is found to be by a relay that falls asleep. */
export type SlotState =
  /** Held by this relay from now on. */
  | 'held'
  /** Transactions that have stored messages are open. */
  | 'storing'
  /** Held, or waited for, by another relay: writers notify. */
  | 'sleeping';

/** Takes the slots that can be had; returns slot and state of each. */
export function takeSlots({ lock }: WakeKeys, slots: readonly number[]): string {
  const key = `${String(lock)}, slot`;
  return `SELECT slot::text, CASE WHEN pg_try_advisory_lock(${key}) THEN 'held'
    WHEN pg_try_advisory_lock_shared(${key}) THEN CASE WHEN pg_advisory_unlock_shared(${key}) THEN 'storing' END
    ELSE 'sleeping' END
  FROM unnest('{${slots.join(',')}}'::integer[]) AS slot`;
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

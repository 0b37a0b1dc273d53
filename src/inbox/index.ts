/**
 * The inbox: the effect of a message happens once, however often the message is delivered.
 *
 * @module
 */
import { systemClock } from '../core/util/clock.js';
import { storeInbox, type InboxOptions, type StoreInbox } from './store-inbox.js';

export type { Handled, InboxOptions, StoreInbox } from './store-inbox.js';
/**
 * An inbox for `subscribe`. Each message is handled in a transaction that also records the message. If it was handled
 * before, the handler is not called. If the handler rejects, everything is rolled back, and the message is delivered
 * again. If a message is delivered twice at once, the second delivery waits for the first.
 *
 * @throws MessengerError `INVALID_OPTION` that names what is wrong. Its `once` rejects with what the handler and the
 *   database library throw, and with a MessengerError: `INVALID_TRANSACTION` for a `transaction` that does not run its
 *   callback in a transaction, `SCHEMA_MISMATCH` if the tables are missing.
 *
 * @example
 * ```ts
 * const inbox = createInbox({ store, consumer: 'billing', transaction: (fn) => db.transaction(fn) });
 * await subscribe(subscriber, { name: 'billing', topics, inbox, signal, handlers: {
 *   'order.created': (order, { tx }) => tx.insert(invoices).values(invoiceFor(order)),
 * } });
 * ```
 */
export function createInbox<Tx extends Handle, Handle>(options: InboxOptions<Tx, Handle>): StoreInbox<Tx> {
  return storeInbox(options, systemClock);
}

/**
 * The inbox: each message takes effect once, however often the message is delivered.
 *
 * @module
 */
import { systemClock } from '../core/util/clock.js';
import { storeInbox, type InboxOptions, type StoreInbox } from './store-inbox.js';

export type { Handled, InboxOptions, StoreInbox } from './store-inbox.js';
/**
 * Creates an inbox for `subscribe`. Each message is handled in a transaction that also records the message. If the
 * message was handled before, the handler is not called. If the handler rejects, everything is rolled back, and the
 * message is delivered again. If a message is delivered twice at once, the second delivery waits for the first.
 *
 * @throws MessengerError `INVALID_OPTION`. The error names what is wrong. The inbox's `once` method rejects with the
 *   errors that the handler and the database library throw. It also rejects with a MessengerError:
 *   `INVALID_TRANSACTION` if `transaction` does not run its callback in a transaction, and `SCHEMA_MISMATCH` if the
 *   tables are missing.
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

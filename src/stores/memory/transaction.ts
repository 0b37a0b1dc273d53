import { MessengerError } from '../../core/errors.js';
import type { Message } from '../../core/contracts/message.js';
import { describe } from '../../core/util/describe.js';

/** A transaction in a `MemoryStore`, with the messages that it will store. `MemoryStore.transaction` creates it. */
export class MemoryTransaction {
  /** @internal */
  readonly added: Message[] = [];
  /** The messages that were received, keyed by consumer and message id. @internal */
  readonly received = new Set<string>();
  /** @internal */
  over = false;
  /** @internal */
  end!: () => void;
  /** Resolves when the transaction is over. @internal */
  readonly ended = new Promise<void>((resolve) => (this.end = resolve));
}

/** @throws MessengerError `INVALID_TRANSACTION` if the handle is missing or unknown, or its transaction is over. */
export function assertOpen(transaction: unknown): void {
  if (!(transaction instanceof MemoryTransaction)) {
    throw new MessengerError(
      'INVALID_TRANSACTION',
      `unknown transaction handle ${describe(transaction)}: pass the transaction that MemoryStore.transaction gives you`,
    );
  }
  if (transaction.over)
    throw new MessengerError('INVALID_TRANSACTION', 'this transaction has ended: store before its function returns');
}

/** Copies a message. The copy shares no object with the original. */
export function copyOf(message: Message, published: boolean): Message {
  const { id, metadata, payload, at, topic, key, deliverAt, holdKey, destination } = message;
  return {
    id,
    metadata: { ...metadata },
    payload: payload.slice(),
    at: new Date(at),
    published,
    topic,
    key,
    deliverAt: deliverAt && new Date(deliverAt),
    holdKey,
    destination,
  };
}

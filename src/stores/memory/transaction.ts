import { MessengerError } from '../../core/errors.js';
import type { Message } from '../../core/contracts/message.js';
import { describe } from '../../core/util/describe.js';

/** What a transaction has stored and not yet committed. Made by `MemoryStore.transaction`. */
export class MemoryTransaction {
  /** @internal */
  readonly added: Message[] = [];
  /** What was received, as its keys. @internal */
  readonly received = new Set<string>();
  /** @internal */
  over = false;
  /** @internal */
  end!: () => void;
  /** Resolves when it is over. @internal */
  readonly ended = new Promise<void>((resolve) => (this.end = resolve));
}

/** @throws MessengerError `INVALID_TRANSACTION` for a handle that is missing, unknown or over. */
export function assertOpen(transaction: unknown): void {
  if (!(transaction instanceof MemoryTransaction)) {
    throw new MessengerError(
      'INVALID_TRANSACTION',
      `unknown transaction handle ${describe(transaction)}: pass what MemoryStore.transaction gives`,
    );
  }
  if (transaction.over)
    throw new MessengerError('INVALID_TRANSACTION', 'this transaction has ended: store before its function returns');
}

/** A message that shares nothing with another. */
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

import type { Message } from '../../core/contracts/message.js';

/** A message as the log keeps it. */
export interface Kept {
  /** The message's sequence number: its position in commit order, counted from 1. */
  readonly seq: number;
  readonly message: Message;
  /** When the message's transaction was committed, in milliseconds since 1970. */
  readonly storedAt: number;
}

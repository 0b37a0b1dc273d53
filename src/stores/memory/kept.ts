import type { Message } from '../../core/contracts/message.js';

/** A message as the log keeps it. */
export interface Kept {
  /** The place of the message in the order of the commits, from 1 on. */
  readonly seq: number;
  readonly message: Message;
  /** When the transaction of the message was committed, in milliseconds since 1970. */
  readonly storedAt: number;
}

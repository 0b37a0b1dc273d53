import type { Message } from '../../core/contracts/message.js';

/** A message as the log keeps it. */
export interface Kept {
  /** The message's place in the order of the commits, counted from 1. */
  readonly seq: number;
  readonly message: Message;
  /** When the message's transaction was committed, in milliseconds since 1970. */
  readonly storedAt: number;
}

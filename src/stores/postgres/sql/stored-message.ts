import { MessengerError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';
import type { Row } from './database.js';
import { tooLargeToRead } from './size.js';

/** A message as it was read, with its place in the log. */
export class StoredMessage implements Message {
  readonly id: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly payload: Uint8Array;
  readonly published = false;
  readonly at: Date;
  readonly topic: string | undefined;
  readonly key: string | undefined;
  readonly deliverAt: Date | undefined;
  readonly holdKey: boolean | undefined;
  /** @internal */
  readonly seq: number;
  /** Whether its time had not come when it was read. @internal */
  readonly isDelayed: boolean;
  /** What it takes in memory beside its payload, roughly. @internal */
  readonly overhead: number;
  /** Its bytes, where they are more than can be read: then it has no payload and no metadata. @internal */
  readonly tooLarge: number | undefined;

  constructor(row: Row, tooLarge: string | null = null) {
    this.tooLarge = tooLarge === null ? undefined : Number(tooLarge);
    this.seq = Number(row[0]);
    this.id = row[1] as string;
    this.topic = (row[2] as string | null) ?? undefined;
    this.key = (row[3] as string | null) ?? undefined;
    this.metadata = row[4] === '{}' ? NO_METADATA : (JSON.parse(row[4] as string) as Record<string, string>);
    this.overhead = 500 + (row[4] as string).length;
    if (tooLarge !== null) this.payload = new Uint8Array();
    else this.payload = typeof row[5] === 'string' ? Buffer.from(row[5]) : (row[5] as Uint8Array);
    this.at = new Date(row[6] === null ? NaN : Number(row[6]));
    const delivery = row[7] as string | null;
    if (delivery === null) {
      this.deliverAt = undefined;
      this.holdKey = undefined;
      this.isDelayed = false;
    } else {
      const [epoch, holds, delayed] = delivery.split(' ');
      this.deliverAt = new Date(Math.round(Number(epoch) * 1000));
      this.holdKey = holds === 't' || undefined;
      this.isDelayed = delayed === 't';
    }
  }
}

/** Which of these messages cannot be handed to a publisher, and why; nothing where all can. */
export function unreadable(messages: readonly StoredMessage[]): ReadonlyMap<Message, Error> | undefined {
  let errors: Map<Message, Error> | undefined;
  for (const message of messages) {
    if (message.tooLarge === undefined) continue;
    errors ??= new Map();
    errors.set(message, tooLargeToRead(message.id, message.tooLarge));
  }
  return errors;
}

/** A message's place in the log. @throws MessengerError `UNKNOWN_MESSAGE` for one that was not read from it. */
export function seqOf(message: Message): number {
  if (message instanceof StoredMessage) return message.seq;
  throw new MessengerError('UNKNOWN_MESSAGE', `message ${message.id} was not read from this store`);
}

const NO_METADATA: Readonly<Record<string, string>> = Object.freeze({});

/** Roughly how many bytes a message takes in memory, for bounding what is read ahead. */
export function sizeOf(message: StoredMessage): number {
  return message.payload.byteLength + message.overhead;
}

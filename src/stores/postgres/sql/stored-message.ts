import { MessengerError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';
import { columnsOf, type Expressions } from './columns.js';
import type { Row } from './database.js';
import { tooLargeToRead, type Fields } from './size.js';
import { epoch, instant } from './statement.js';

/**
 * The columns from which a `StoredMessage` is made. Every column except for bytes is text. `delivery` is null unless
 * the message has a delivery time. It contains that time, whether the message holds its key, and whether the time is
 * still to come by this server's clock.
 */
export const MESSAGE = columnsOf('seq', 'id', 'topic', 'key', 'metadata', 'payload', 'at', 'delivery');

type MessageColumn = (typeof MESSAGE.names)[number];

/**
 * The SQL expressions for a message's columns. The `Fields` parameter contains the expressions for the fields that can
 * be left out.
 */
export function messageColumns(
  table: string,
  jsonPayload: boolean,
  { id, topic, key, metadata, payload }: Fields,
): Expressions<MessageColumn> {
  return {
    seq: `${table}.seq::text`,
    id,
    topic,
    key,
    metadata: `(${metadata})::text`,
    payload: jsonPayload ? `(${payload})::text` : payload,
    at: instant(`${table}.at`),
    delivery: `CASE WHEN ${table}.deliver_at IS NOT NULL
        THEN concat_ws(' ', ${epoch(`${table}.deliver_at`)}, ${table}.hold_key, ${table}.deliver_at > clock_timestamp()) END`,
  };
}

const { at } = MESSAGE;

/** A message as a relay read it, with its position in the log. */
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
  /** Whether its delivery time was still to come when the message was read. @internal */
  readonly isDelayed: boolean;
  /** Roughly how many bytes the message takes in memory besides its payload. @internal */
  readonly overhead: number;
  /**
   * The size of the message in bytes, if it is too large to read. The message then has no payload and no metadata.
   * @internal
   */
  readonly tooLarge: number | undefined;

  constructor(row: Row, tooLarge: string | null = null) {
    this.tooLarge = tooLarge === null ? undefined : Number(tooLarge);
    this.seq = Number(row[at.seq]);
    this.id = row[at.id] as string;
    this.topic = (row[at.topic] as string | null) ?? undefined;
    this.key = (row[at.key] as string | null) ?? undefined;
    const metadata = row[at.metadata] as string;
    this.metadata = metadata === '{}' ? NO_METADATA : (JSON.parse(metadata) as Record<string, string>);
    this.overhead = 500 + metadata.length;
    const payload = row[at.payload] as string | Uint8Array;
    if (tooLarge !== null) this.payload = new Uint8Array();
    else this.payload = typeof payload === 'string' ? Buffer.from(payload) : payload;
    this.at = new Date(row[at.at] === null ? NaN : Number(row[at.at]));
    const delivery = row[at.delivery] as string | null;
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

/**
 * Returns the messages that cannot be handed to a publisher, each with the reason. Returns `undefined` if there are
 * none.
 */
export function unreadable(messages: readonly StoredMessage[]): ReadonlyMap<Message, Error> | undefined {
  let errors: Map<Message, Error> | undefined;
  for (const message of messages) {
    if (message.tooLarge === undefined) continue;
    errors ??= new Map();
    errors.set(message, tooLargeToRead(message.id, message.tooLarge));
  }
  return errors;
}

/**
 * Returns a message's position in the log. @throws MessengerError `UNKNOWN_MESSAGE` for a message that was not read
 * from the log.
 */
export function seqOf(message: Message): number {
  if (message instanceof StoredMessage) return message.seq;
  throw new MessengerError('UNKNOWN_MESSAGE', `message ${message.id} was not read from this store`);
}

const NO_METADATA: Readonly<Record<string, string>> = Object.freeze({});

/** Roughly how many bytes a message takes in memory. Relays use it to limit how much they read ahead. */
export function sizeOf(message: StoredMessage): number {
  return message.payload.byteLength + message.overhead;
}

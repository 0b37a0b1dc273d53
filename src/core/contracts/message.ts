import { EmptyMessagePayloadError, MessengerError } from '../errors.js';
import { uuidv7 } from '../util/uuid.js';
import { describe } from '../util/describe.js';

/** What is stored, relayed and received. Read-only: stores and brokers hand out what they hold. */
export interface Message {
  /** Unique; a UUIDv7 unless the application chose it. Brokers that de-duplicate do so by it. */
  readonly id: string;
  /** The header of the message: string keys, string values. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The body: at least one byte. */
  readonly payload: Uint8Array;
  /** Whether the broker has acknowledged it. */
  readonly published: boolean;
  /** When the application created it, by the application's clock. Never used for ordering. */
  readonly at: Date;
  /** What the message is about, for routing. */
  readonly topic?: string | undefined;
  /** Messages of one key are published in the order in which they were stored. `PostgresStore`: at most 2,000 bytes of UTF-8. */
  readonly key?: string | undefined;
  /** Not published before this time, by the store's clock. It leaves its key's order, unless it holds its key. */
  readonly deliverAt?: Date | undefined;
  /** What is stored of its key after it waits until it is published. Only with `deliverAt` and `key`. */
  readonly holdKey?: boolean | undefined;
  /** The one destination that publishes it. A store need not give it back: whoever reads the message is that destination. */
  readonly destination?: string | undefined;
}

/** What `newMessage` can be told beside the payload. */
export interface NewMessageOptions {
  /** @default a UUIDv7 */
  id?: string;
  /** Copied. @default {} */
  metadata?: Readonly<Record<string, string>>;
  /** @default now, by this machine's clock */
  at?: Date;
  /** @default none */
  topic?: string | undefined;
  /** @default none: the message has no order among others */
  key?: string | undefined;
  /**
   * Not published before this time, by the store's clock; one that has passed makes no difference. Until
   * then the message is outside of its key's order: those stored after it go before it.
   *
   * @default at once
   */
  deliverAt?: Date | undefined;
  /** With `deliverAt` and `key`: what is stored of its key after it waits for it. @default false */
  holdKey?: boolean | undefined;
  /**
   * The one destination that publishes it, whatever its topics are. It has to be there when the message is stored.
   *
   * @default every destination that takes its topic
   */
  destination?: string | undefined;
}

/** The message that applications make. Its metadata can be set until it is stored. */
export class GenericMessage implements Message {
  readonly id: string;
  readonly payload: Uint8Array;
  readonly published: boolean = false;
  readonly at: Date;
  readonly topic?: string | undefined;
  readonly key?: string | undefined;
  readonly deliverAt?: Date | undefined;
  readonly holdKey?: boolean | undefined;
  readonly destination?: string | undefined;
  readonly #metadata: Record<string, string>;

  /**
   * @throws EmptyMessagePayloadError for a payload of zero bytes.
   * @throws MessengerError `INVALID_MESSAGE` naming the field that is not what it should be.
   */
  constructor(payload: Uint8Array, options: NewMessageOptions = {}) {
    this.payload = payload;
    this.id = options.id ?? uuidv7();
    this.at = options.at ?? new Date();
    if (options.metadata !== undefined) assertMetadata(options.metadata);
    this.#metadata = { ...options.metadata };
    if (options.topic !== undefined) this.topic = options.topic;
    if (options.key !== undefined) this.key = options.key;
    if (options.deliverAt !== undefined) this.deliverAt = options.deliverAt;
    if (options.holdKey !== undefined) this.holdKey = options.holdKey;
    if (options.destination !== undefined) this.destination = options.destination;
    assertMessage(this);
  }

  get metadata(): Readonly<Record<string, string>> {
    return this.#metadata;
  }

  /** Sets one metadata value, replacing an earlier one of the same key. Returns the message, to chain. */
  setMetadata(key: string, value: string): this {
    assertMetadataEntry(key, value);
    // Not an assignment: that of `__proto__` would be lost.
    Object.defineProperty(this.#metadata, key, { value, writable: true, enumerable: true, configurable: true });
    return this;
  }
}

/**
 * A new message of a payload: bytes as they are, a string as UTF-8.
 *
 * @throws EmptyMessagePayloadError for an empty payload.
 * @throws MessengerError `INVALID_MESSAGE` for anything else that cannot be stored.
 *
 * @example
 * ```ts
 * const message = newMessage('{"order":1}', { topic: 'order.created', key: 'order-1' })
 *   .setMetadata('tenant', 'acme');
 * ```
 */
export function newMessage(payload: Uint8Array | string, options?: NewMessageOptions): GenericMessage {
  // A missing payload arrives from untyped code; it is an empty one, not a crash further down.
  if ((payload as unknown) === undefined || (payload as unknown) === null) throw new EmptyMessagePayloadError();
  return new GenericMessage(typeof payload === 'string' ? encodeText(payload, 'payload') : payload, options);
}

const encoder = new TextEncoder();

function encodeText(text: string, field: string): Uint8Array {
  assertWellFormed(text, field);
  return encoder.encode(text);
}

const FIRST_TIME = Date.parse('0001-01-01T00:00:00.000Z');
const LAST_TIME = Date.parse('9999-12-31T23:59:59.999Z');

/** @throws unless `value` is a message that any store can keep. */
export function assertMessage(value: Message): void {
  if (!(value.payload instanceof Uint8Array)) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `message payload must be bytes (Uint8Array), or for newMessage a string, got ${describe(value.payload)}`,
    );
  }
  if (value.payload.byteLength === 0) throw new EmptyMessagePayloadError();
  if (typeof value.id !== 'string' || value.id === '') {
    throw new MessengerError('INVALID_MESSAGE', `message id must be a non-empty string, got ${describe(value.id)}`);
  }
  assertText(value.id, 'id');
  assertTime(value.at, 'at');
  assertOptionalText(value.topic, 'topic');
  assertOptionalText(value.key, 'key');
  assertOptionalText(value.destination, 'destination');
  if (value.deliverAt !== undefined) assertTime(value.deliverAt, 'deliverAt');
  assertHoldKey(value);
  assertMetadata(value.metadata);
}

/** Later and earlier years have another number of digits, which databases and brokers do not read. */
function assertTime(value: unknown, field: string): void {
  if (value instanceof Date && value.getTime() >= FIRST_TIME && value.getTime() <= LAST_TIME) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `message ${field} must be a valid Date of the years 1 to 9999, got ${describe(value)}`,
  );
}

function assertHoldKey({ holdKey, key, deliverAt }: Message): void {
  const value: unknown = holdKey;
  if (value === undefined || value === false) return;
  if (value !== true) {
    throw new MessengerError('INVALID_MESSAGE', `message holdKey must be true or false, got ${describe(value)}`);
  }
  if (key !== undefined && deliverAt !== undefined) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `message holdKey needs a ${key === undefined ? 'key' : 'deliverAt'}: it makes a key wait for a message that is delivered later`,
  );
}

function assertMetadata(metadata: unknown): void {
  // What iterates (an array, a Map, Headers) does not have its entries as properties.
  if (typeof metadata !== 'object' || metadata === null || Symbol.iterator in metadata) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `message metadata must be an object of strings, got ${describe(metadata)}`,
    );
  }
  for (const [key, value] of Object.entries(metadata)) assertMetadataEntry(key, value);
}

function assertMetadataEntry(key: unknown, value: unknown): void {
  if (typeof key !== 'string' || key === '') {
    throw new MessengerError('INVALID_MESSAGE', `metadata keys must be non-empty strings, got ${describe(key)}`);
  }
  if (typeof value !== 'string') {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `metadata[${JSON.stringify(key)}] must be a string, got ${describe(value)}`,
    );
  }
  assertText(key, 'metadata key');
  assertText(value, `metadata[${JSON.stringify(key)}]`);
}

function assertOptionalText(value: unknown, field: string): void {
  if (value === undefined) return;
  if (typeof value !== 'string' || value === '') {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `message ${field} must be a non-empty string or absent, got ${describe(value)}`,
    );
  }
  assertText(value, field);
}

/** Text that every database and broker can hold: no NUL, no lone surrogate. */
function assertText(value: string, field: string): void {
  if (value.includes('\u0000')) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `message ${field} must not contain the character U+0000, got ${describe(value)}`,
    );
  }
  assertWellFormed(value, field);
}

function assertWellFormed(value: string, field: string): void {
  // Not String.prototype.isWellFormed: it is missing from the ES2023 library that users may compile with.
  if (/\p{Surrogate}/u.test(value)) {
    throw new MessengerError('INVALID_MESSAGE', `message ${field} must be well-formed Unicode, got ${describe(value)}`);
  }
}

import { EmptyMessagePayloadError, MessengerError } from '../errors.js';
import { uuidv7 } from '../util/uuid.js';
import { describe } from '../util/describe.js';

/**
 * A message that an application stores, a relay publishes and a consumer receives. It is read-only, because stores and
 * brokers return the objects that they keep, not copies.
 */
export interface Message {
  /** A unique id: a UUIDv7, unless the application chose another id. Brokers that deduplicate use this id. */
  readonly id: string;
  /** The message's headers, as string keys with string values. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The message's body, which has at least one byte. */
  readonly payload: Uint8Array;
  /** Whether the broker has acknowledged the message. */
  readonly published: boolean;
  /** When the application created the message, by the application's clock. Never used for ordering. */
  readonly at: Date;
  /** The kind of message, used for routing. */
  readonly topic?: string | undefined;
  /**
   * Messages with the same key are published in the order in which they were stored. `PostgresStore` accepts a key of
   * at most 2,000 bytes of UTF-8.
   */
  readonly key?: string | undefined;
  /**
   * The message is not published before this time, by the store's clock. Until then, later messages with the same key
   * do not wait for it, unless `holdKey` is true.
   */
  readonly deliverAt?: Date | undefined;
  /** Whether later messages with the same key wait until this message is published. Requires `deliverAt` and `key`. */
  readonly holdKey?: boolean | undefined;
  /**
   * The only destination that publishes the message. A store can omit this field from the messages that it returns to a
   * relay, because only that destination's relays read such a message.
   */
  readonly destination?: string | undefined;
}

/** The options of `newMessage`. */
export interface NewMessageOptions {
  /** @default a UUIDv7 */
  id?: string;
  /** The metadata, which is copied. @default {} */
  metadata?: Readonly<Record<string, string>>;
  /** @default now, by this machine's clock */
  at?: Date;
  /** @default none */
  topic?: string | undefined;
  /** @default none: the message has no order relative to others */
  key?: string | undefined;
  /**
   * The message is not published before this time, by the store's clock. A time in the past has no effect. Until then,
   * later messages with the same key do not wait for this message.
   *
   * @default the message is published at once
   */
  deliverAt?: Date | undefined;
  /**
   * Whether later messages with the same key wait until this message is published. Requires `deliverAt` and `key`.
   * @default false
   */
  holdKey?: boolean | undefined;
  /**
   * The only destination that publishes the message, even if its topics do not include the message's topic. The
   * destination must exist when the message is stored.
   *
   * @default every destination that publishes the message's topic
   */
  destination?: string | undefined;
}

/** A message that an application creates. Its metadata can be changed until it is stored. */
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
   * @throws MessengerError `INVALID_MESSAGE` that names the field with an invalid value.
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

  /** Sets one metadata value, replacing any earlier value for the same key. Returns the message, for chaining. */
  setMetadata(key: string, value: string): this {
    assertMetadataEntry(key, value);
    // Do not assign the value, because an assignment to `__proto__` would be lost.
    Object.defineProperty(this.#metadata, key, { value, writable: true, enumerable: true, configurable: true });
    return this;
  }
}

/**
 * Creates a message from a payload. Bytes are used unchanged, and a string is encoded as UTF-8.
 *
 * @throws EmptyMessagePayloadError for an empty payload.
 * @throws MessengerError `INVALID_MESSAGE` for any other value that cannot be stored.
 *
 * @example
 * ```ts
 * const message = newMessage('{"order":1}', { topic: 'order.created', key: 'order-1' })
 *   .setMetadata('tenant', 'acme');
 * ```
 */
export function newMessage(payload: Uint8Array | string, options?: NewMessageOptions): GenericMessage {
  // Untyped code can omit the payload. A missing payload counts as empty, and must not cause a crash further down.
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

/**
 * Checks that every store can keep a message.
 * @throws as the constructor of `GenericMessage` does, if the message is invalid.
 */
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

/** Checks that the year has four digits, because databases and brokers cannot read other years. */
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
  // An iterable (an array, a Map, Headers) is rejected, because its entries are not its properties.
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

/** Checks that every database and broker can store a string. Such a string contains no NUL and no lone surrogate. */
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
  // Do not use String.prototype.isWellFormed, because users can compile with the ES2023 library, which lacks it.
  if (/\p{Surrogate}/u.test(value)) {
    throw new MessengerError('INVALID_MESSAGE', `message ${field} must be well-formed Unicode, got ${describe(value)}`);
  }
}

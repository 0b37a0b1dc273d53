/** Every `code` that an error of this package can carry. Switch on it; messages may change. */
export type ErrorCode =
  /** A message was created or stored without a payload. */
  | 'EMPTY_MESSAGE_PAYLOAD'
  /** A message is malformed: the error names the field and the value. */
  | 'INVALID_MESSAGE'
  /** An option is out of range or of the wrong type: the error quotes it. */
  | 'INVALID_OPTION'
  /** `add` was called without a handle, with one of an unknown kind, or with one that is not in a transaction. */
  | 'INVALID_TRANSACTION'
  /** A call that this adapter does not support. */
  | 'UNSUPPORTED'
  /** The store's tables are missing, older, newer, altered, or another cluster's or environment's: the error names what to run. */
  | 'SCHEMA_MISMATCH'
  /** `published` was given a message that `messages` did not return. */
  | 'UNKNOWN_MESSAGE'
  /** The role of the database connection lacks a privilege: the error says on what, and what to run. */
  | 'NOT_ALLOWED'
  /** No destination of this name is known: the error says which are. */
  | 'UNKNOWN_DESTINATION'
  /** No relay worked on the destination for longer than its limit, and cleaning went on without it. */
  | 'DESTINATION_FORGOTTEN'
  /** The state of the store does not allow it now: the error says what is in the way, and what to do. */
  | 'CONFLICT'
  /** Another relay holds, or has taken over, this relay's lease. */
  | 'LEASE_LOST'
  /** A call to a store or a broker did not answer in time. One that a signal ended is no such call. */
  | 'TIMEOUT'
  /** Some of the store was not cleaned: see `CleaningError`. */
  | 'CLEANING_FAILED'
  /** Told, not thrown: the datastore does not answer, or fails, and is tried again. */
  | 'DATASTORE_FAILED'
  /** Told, not thrown: a relay is not woken by writers, and polls by its interval. */
  | 'WAKE_FAILED'
  /** The broker did not acknowledge. */
  | 'PUBLISH_FAILED'
  /** As many messages of a topic wait to be tried again as may: see `maxParked`. */
  | 'PARKING_LIMIT'
  /** The relay cannot go on. */
  | 'FATAL';

/** Every code, to be looked up at run time. */
const CODES: Readonly<Record<ErrorCode, true>> = {
  EMPTY_MESSAGE_PAYLOAD: true,
  INVALID_MESSAGE: true,
  INVALID_OPTION: true,
  INVALID_TRANSACTION: true,
  UNSUPPORTED: true,
  SCHEMA_MISMATCH: true,
  UNKNOWN_MESSAGE: true,
  NOT_ALLOWED: true,
  UNKNOWN_DESTINATION: true,
  DESTINATION_FORGOTTEN: true,
  CONFLICT: true,
  LEASE_LOST: true,
  TIMEOUT: true,
  CLEANING_FAILED: true,
  DATASTORE_FAILED: true,
  WAKE_FAILED: true,
  PUBLISH_FAILED: true,
  PARKING_LIMIT: true,
  FATAL: true,
};

/** The base of every error of this package: a stable `code`, and the `cause` where there is one. */
export class MessengerError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Thrown when a message has no payload, or one of zero bytes. Code `EMPTY_MESSAGE_PAYLOAD`. */
export class EmptyMessagePayloadError extends MessengerError {
  constructor(message = 'empty message payload: a message must carry at least one byte') {
    super('EMPTY_MESSAGE_PAYLOAD', message);
  }
}

/**
 * Ends `Messenger.start`: the datastore could not be reached at start, or not for longer than
 * `storeOutageLimit`. The `cause` is the store's own error. Code `FATAL`.
 */
export class FatalError extends MessengerError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('FATAL', message, options);
  }
}

/**
 * How far a failed publish reaches, which decides what the relay does next.
 *
 * | kind | meaning | the relay |
 * |---|---|---|
 * | `retryable` | this message, this time | parks the message and its key, and tries again with backoff |
 * | `permanent` | this message, for ever (too large, refused) | does at once what `onExhausted` says: a dead letter |
 * | `connection` | any message (no broker, no permission) | pauses with backoff; nobody's attempts are burnt |
 *
 * When a call has no answer and no other was acknowledged meanwhile, most of a batch fails alike, or one refusal after another does, it is taken for the broker's
 * failure whatever its kind: see `CircuitStatus`.
 */
export type FailureKind = 'retryable' | 'permanent' | 'connection';

/** A broker's refusal of one message. Code `PUBLISH_FAILED`. */
export class PublishError extends MessengerError {
  readonly kind: FailureKind;

  constructor(message: string, options: { kind: FailureKind; cause?: unknown }) {
    super('PUBLISH_FAILED', message, options);
    this.kind = options.kind;
  }
}

/**
 * Whether an error carries one of these codes. By the code, not the class: core and a store may be two copies
 * of this package, one imported and one required.
 */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return codes.some((each) => each === code);
}

/** The code of an error of this package, by the code as `hasCode`; `undefined` for any other error. */
export function codeOf(error: unknown): ErrorCode | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' && Object.hasOwn(CODES, code) ? (code as ErrorCode) : undefined;
}

/** The text of an error. Classes of others have messages that are no strings, whatever their types say. */
export function messageOf(error: Error): string {
  const { message } = error as { message: unknown };
  return typeof message === 'string' ? message : 'an error without a message';
}

/** Whatever was thrown, as an `Error`. */
export function toError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  // `String` of an object calls its code, which may throw.
  const text = typeof thrown === 'object' && thrown !== null ? 'an object' : String(thrown);
  return new Error(typeof thrown === 'string' ? thrown : `not an Error was thrown: ${text}`, { cause: thrown });
}

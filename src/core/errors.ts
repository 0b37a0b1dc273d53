/** Every `code` that an error from this package can have. Switch on the code, because error messages can change. */
export type ErrorCode =
  /** A message was created or stored without a payload. */
  | 'EMPTY_MESSAGE_PAYLOAD'
  /** A message is malformed. The error names the field and the value. */
  | 'INVALID_MESSAGE'
  /** An option is unknown, out of range or of the wrong type. The error quotes the option. */
  | 'INVALID_OPTION'
  /**
   * The call has no usable transaction.
   *
   * - `send`, `add`, `stored` and `receive`: the handle is missing, is of an unknown kind or is not in a transaction,
   *   or its transaction has ended or failed.
   * - `once` on an inbox: the inbox's `transaction` function did not run its callback to the end, or the transaction
   *   was rolled back while the handler was running.
   * - Any call to a store that uses a `pg` Client: the application has a transaction open on this Client.
   */
  | 'INVALID_TRANSACTION'
  /** The adapter does not support this call, this server or this session. */
  | 'UNSUPPORTED'
  /**
   * The store's tables are missing, older, newer or altered, or belong to another cluster or environment. The error
   * says what to run.
   */
  | 'SCHEMA_MISMATCH'
  /** `published` was called with a message that `messages` did not return. */
  | 'UNKNOWN_MESSAGE'
  /** The role of the database connection lacks a privilege. The error names the object, and says what to run. */
  | 'NOT_ALLOWED'
  /**
   * No destination has this name, or it was forgotten. The error lists the existing destinations, or says what to do.
   */
  | 'UNKNOWN_DESTINATION'
  /** The destination had no relay for longer than its `forgetAfter`, so cleaning no longer waits for it. */
  | 'DESTINATION_FORGOTTEN'
  /** The store's current state does not allow the call. The error says what prevents the call, and what to do. */
  | 'CONFLICT'
  /** Another relay holds the lease, or has taken it over from this relay. */
  | 'LEASE_LOST'
  /** A store or a broker did not answer a call in time. A call that was ended by its signal is not a timeout. */
  | 'TIMEOUT'
  /** A part of the store was not cleaned: see `CleaningError`. */
  | 'CLEANING_FAILED'
  /**
   * The datastore is failing or not answering, and the relay will try again. Passed to the error logger, never thrown.
   */
  | 'DATASTORE_FAILED'
  /** Writers cannot wake the relay, so it polls at its interval. Passed to the error logger, never thrown. */
  | 'WAKE_FAILED'
  /** The broker did not acknowledge a message. */
  | 'PUBLISH_FAILED'
  /** The number of a topic's messages that are waiting for another attempt has reached `maxParked`. */
  | 'PARKING_LIMIT'
  /**
   * The relay cannot continue. The error is a `FatalError`. In Nest, health checks and the error logger can also
   * receive a plain `MessengerError` with this code if a subscriber ended by itself.
   */
  | 'FATAL';

/** All codes, as an object, so that a code can be looked up at run time. */
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

/**
 * The base class of every error from this package. It has a stable `code`, and a `cause` if another error caused it.
 */
export class MessengerError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Thrown if a message has no payload, or a payload of zero bytes. Code `EMPTY_MESSAGE_PAYLOAD`. */
export class EmptyMessagePayloadError extends MessengerError {
  constructor(message = 'empty message payload: a message must carry at least one byte') {
    super('EMPTY_MESSAGE_PAYLOAD', message);
  }
}

/**
 * Ends a relay, and rejects `Messenger.start`. Either the relay could not reach the datastore at start or for longer
 * than `storeOutageLimit`, or it cannot use this datastore. The `cause` is the store's own error. Code `FATAL`.
 */
export class FatalError extends MessengerError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('FATAL', message, options);
  }
}

/**
 * What a failure to publish affects. This decides what the relay does next.
 *
 * | kind | what fails | what the relay does |
 * |---|---|---|
 * | `retryable` | this attempt | parks the message, holds back later ones with its key, retries with backoff |
 * | `permanent` | this message, always (too large, rejected) | applies `onExhausted` at once (default: dead letter) |
 * | `connection` | every message (no broker, no permission) | pauses with backoff; counts no failed attempts |
 *
 * Regardless of the kind, the relay treats a failure as a broker outage in three cases:
 *
 * - A call is not answered, and no other call is acknowledged in the meantime.
 * - Most messages in a batch fail with similar errors.
 * - A topic gets several similar rejections in a row.
 *
 * See `CircuitStatus`.
 */
export type FailureKind = 'retryable' | 'permanent' | 'connection';

/** The broker did not acknowledge a message. `kind` says what the failure affects. Code `PUBLISH_FAILED`. */
export class PublishError extends MessengerError {
  readonly kind: FailureKind;

  constructor(message: string, options: { kind: FailureKind; cause?: unknown }) {
    super('PUBLISH_FAILED', message, options);
    this.kind = options.kind;
  }
}

/**
 * Whether an error has one of these codes. Compares codes instead of classes, because core and a store can come from
 * two copies of this package, one loaded with `import` and one with `require`.
 */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return codes.some((each) => each === code);
}

/**
 * Returns the code of an error from this package, or `undefined` for any other error. Like `hasCode`, it ignores the
 * class.
 */
export function codeOf(error: unknown): ErrorCode | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' && Object.hasOwn(CODES, code) ? (code as ErrorCode) : undefined;
}

/**
 * Returns an error's message. In an error from another package, the message can be something other than a string, even
 * if its type says otherwise.
 */
export function messageOf(error: Error): string {
  const { message } = error as { message: unknown };
  return typeof message === 'string' ? message : 'an error without a message';
}

/** Turns any thrown value into an `Error`. */
export function toError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  // `String(object)` runs the object's own code, which can throw.
  const text = typeof thrown === 'object' && thrown !== null ? 'an object' : String(thrown);
  return new Error(typeof thrown === 'string' ? thrown : `a value that is not an Error was thrown: ${text}`, {
    cause: thrown,
  });
}

/**
 * Every `code` that an error from this package can have. Switch on the code, because the texts of errors can change.
 */
export type ErrorCode =
  /** A message was created or stored without a payload. */
  | 'EMPTY_MESSAGE_PAYLOAD'
  /** A message is malformed. The error names the field and the value. */
  | 'INVALID_MESSAGE'
  /** An option is unknown, out of range or of the wrong type. The error quotes the option. */
  | 'INVALID_OPTION'
  /**
   * There is no transaction that the call can use.
   *
   * - `send`, `add`, `stored` and `receive`: the handle is missing, of an unknown kind or not in a transaction, or its
   *   transaction has ended or failed.
   * - `once` of an inbox: the function `transaction` of the inbox did not run its callback to the end, or the
   *   transaction was rolled back while the handler ran.
   * - Any call of a store that is built on a `pg` Client: this Client is in a transaction of the application.
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
  /** No relay worked on the destination for longer than its `forgetAfter`, and cleaning no longer waits for it. */
  | 'DESTINATION_FORGOTTEN'
  /** The state of the store does not allow the call now. The error says what prevents it, and what to do. */
  | 'CONFLICT'
  /** Another relay holds this relay's lease, or has taken it over. */
  | 'LEASE_LOST'
  /** A call to a store or a broker was not answered in time. A call that its signal ended is not a timeout. */
  | 'TIMEOUT'
  /** A part of the store was not cleaned: see `CleaningError`. */
  | 'CLEANING_FAILED'
  /** Passed to the error logger, never thrown: the datastore does not answer or fails, and the relay tries again. */
  | 'DATASTORE_FAILED'
  /** Passed to the error logger, never thrown: writers cannot wake the relay, which polls at its interval. */
  | 'WAKE_FAILED'
  /** The broker did not acknowledge a message. */
  | 'PUBLISH_FAILED'
  /** The number of messages of a topic that wait to be tried again has reached `maxParked`. */
  | 'PARKING_LIMIT'
  /**
   * The relay cannot go on: a `FatalError`. In Nest, it can also be a plain `MessengerError` in the health and in the
   * error logger, because a subscriber ended by itself.
   */
  | 'FATAL';

/** All codes, in an object so that a code can be looked up at run time. */
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

/** The base class of every error from this package. It has a stable `code`, and a `cause` if there is one. */
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
 * Ends a relay, and rejects `Messenger.start`. It means that the relay could not reach the datastore at start, or for
 * longer than `storeOutageLimit`, or that it cannot work on this datastore. The `cause` is the store's own error. Code
 * `FATAL`.
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
 * | `retryable` | this message, this time | parks the message and its key, and tries again with backoff |
 * | `permanent` | this message, for ever (too large, refused) | at once what `onExhausted` says; by default a dead letter |
 * | `connection` | any message (no broker, no permission) | pauses with backoff; counts no attempt of any message |
 *
 * Whatever the kind of a failure, the relay takes it for a failure of the broker in three cases: a call is not answered, and
 * no other call was acknowledged meanwhile; most messages of a batch fail alike; or one refusal after another is alike. See
 * `CircuitStatus`.
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
 * Whether an error has one of these codes. It compares the code and not the class, because core and a store can come
 * from two copies of this package, one imported and one required.
 */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return codes.some((each) => each === code);
}

/**
 * Returns the code of an error from this package, and `undefined` for any other error. Like `hasCode`, it ignores the
 * class.
 */
export function codeOf(error: unknown): ErrorCode | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' && Object.hasOwn(CODES, code) ? (code as ErrorCode) : undefined;
}

/**
 * Returns an error's message. An error class from another package can have a message that is not a string, even if its
 * type says otherwise.
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

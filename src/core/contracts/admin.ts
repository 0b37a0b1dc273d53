import type { StoreCallOptions } from './call-options.js';
import type { Message } from './message.js';

/**
 * The state of a destination. Message counts are capped at 10,000, so 10,000 means 10,000 or more. Times come from the
 * database's clock.
 */
export interface DestinationState {
  readonly name: string;
  /**
   * The topics that the destination publishes, in addition to messages that are addressed to it. Null if it publishes
   * all topics, and also messages without a topic.
   */
  readonly topics: readonly string[] | null;
  readonly partitions: number;
  /** How many of the destination's partitions are held by a relay now. */
  readonly held: number;
  /** How many relays serve the destination, or are waiting for their share of its partitions. */
  readonly relays: number;
  /**
   * How many of the newest 10,000 messages in the log are committed but not yet settled. Such a message has not been
   * published, or its publication has not been recorded yet.
   */
  readonly pending: number;
  /** Whether older messages in the log are also pending. */
  readonly morePending: boolean;
  /** How many milliseconds ago the oldest pending message was stored; null if no message is pending. */
  readonly oldestPending: number | null;
  /**
   * How many messages are parked, not counting dead letters. Each of them is waiting for another attempt, for an
   * earlier message with the same key, for its `deliverAt`, or for an operator.
   */
  readonly parked: number;
  /** How many of the `parked` messages are blocked. Later messages with the same key wait until an operator acts. */
  readonly blocked: number;
  readonly dead: number;
  /** When the destination was added; null if its first relay created it. */
  readonly createdAt: Date | null;
  /** When a relay last served the destination; null if no relay ever did. */
  readonly activeAt: Date | null;
  /**
   * The time since which the destination has had no relay, although messages are waiting for it and hold up cleaning.
   * For a destination that was never added and never had a relay, this is when the oldest of those messages was stored.
   * Otherwise null.
   */
  readonly stalledSince: Date | null;
  /** How many milliseconds the destination can be without a relay before it is forgotten; null for no limit. */
  readonly forgetAfter: number | null;
  /**
   * When the destination was forgotten because it had been without a relay for longer than `forgetAfter`. Cleaning does
   * not wait for a forgotten destination, and relays refuse to serve it. Null if it was not forgotten.
   */
  readonly forgottenAt: Date | null;
}

/** The options of `addDestination`. Durations are in milliseconds. */
export interface AddDestinationOptions extends StoreCallOptions {
  /**
   * Where the destination starts in the log:
   *
   * - `'beginning'` starts with the oldest message that is still in the log.
   * - `'end'` starts with messages stored from now on.
   * - A Date starts with messages stored at that time or later, by the database's clock. The destination can also
   *   publish a few messages that other transactions stored just before that time.
   *
   * In every case, the destination also publishes the messages from transactions that are open while it is being added.
   */
  readonly from: 'beginning' | 'end' | Date;
  /**
   * The topics that the destination publishes, in addition to messages that are addressed to it. With `[]` it publishes
   * only the messages that are addressed to it.
   * @default all topics, and messages without a topic
   */
  readonly topics?: readonly string[] | undefined;
  /**
   * How long the destination can be without a relay before it is forgotten and cleaning stops waiting for it: 60,000 or
   * more.
   * @default no limit
   */
  readonly forgetAfter?: number | undefined;
}

/** The counts of the messages that were removed together with a destination. */
export type RemovedDestination = Pick<DestinationState, 'pending' | 'morePending' | 'parked' | 'dead'>;

/** The options of `updateDestination`. Durations are in milliseconds. */
export interface UpdateDestinationOptions extends StoreCallOptions {
  /**
   * How long the destination can be without a relay before it is forgotten and cleaning stops waiting for it: 60,000 or
   * more, or null for no limit.
   */
  readonly forgetAfter: number | null;
}

/** The options of `removeDestination`. */
export interface RemoveDestinationOptions extends StoreCallOptions {
  /**
   * Removes the destination even if it has unpublished messages or dead letters, which are then lost.
   * @default false
   */
  readonly discard?: boolean | undefined;
}

/** Selects messages that are waiting for an operator. A message must match every given filter. */
export interface DeadLetterFilter extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only messages with these ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /**
   * `dead` selects dead letters. `blocked` selects messages that hold back later messages with the same key.
   * @default both
   */
  readonly state?: 'dead' | 'blocked' | undefined;
  /** Only messages whose last error contains this string. */
  readonly error?: string | undefined;
  /** Only messages that became dead letters or were blocked at this time or later, by the database's clock. */
  readonly since?: Date | undefined;
  /** Only messages that became dead letters or were blocked before this time, by the database's clock. */
  readonly until?: Date | undefined;
}

/** The options of `deadLetters`. */
export interface DeadLettersOptions extends DeadLetterFilter {
  /** The maximum number of messages to return: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /**
   * Only messages with a `seq` greater than this. For the next page, pass the last `seq` of the previous page.
   * @default 0
   */
  readonly after?: number | undefined;
}

/** The options of `requeue` and `discard`. */
export interface DeadLetterSelection extends DeadLetterFilter {
  /**
   * Selects all of the destination's dead letters and blocked messages. Must be true if no filter except `destination`
   * is given.
   * @default false
   */
  readonly all?: boolean | undefined;
  /** Only counts the selected messages, and changes nothing. @default false */
  readonly dryRun?: boolean | undefined;
}

/** A complete message that is waiting for an operator. Times come from the database's clock. */
export interface DeadLetter {
  /** The message's sequence number in the log. */
  readonly seq: number;
  /**
   * The message. If it is too large to read, its payload and metadata are left out here, and `error` gives its size.
   * The store still has the whole message.
   */
  readonly message: Message;
  /** `dead` for a dead letter. `blocked` for a message that holds back later messages with the same key. */
  readonly state: 'dead' | 'blocked';
  /** The last error, as a string. */
  readonly error: string | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When the message became a dead letter or was blocked. */
  readonly givenUpAt: Date;
}

/**
 * Why a message is parked:
 *
 * - `retry`: the relay will try the message again at its `nextAt`.
 * - `behind`: an earlier message with the same key comes first.
 * - `delayed`: the message is waiting for its `deliverAt`.
 * - `blocked`: the relay has stopped trying the message, and later messages with the same key wait for an operator.
 */
export type ParkedState = 'retry' | 'behind' | 'delayed' | 'blocked';

/** The options of `parked`. A message must match every given filter. */
export interface ParkedOptions extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only messages with these ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /** @default all states */
  readonly state?: ParkedState | undefined;
  /** Only messages whose last error contains this string. */
  readonly error?: string | undefined;
  /** The maximum number of messages to return: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /**
   * Only messages with a `seq` greater than this. For the next page, pass the last `seq` of the previous page.
   * @default 0
   */
  readonly after?: number | undefined;
}

/** A complete parked message that is not a dead letter. Times come from the database's clock. */
export interface ParkedMessage {
  /** The message's sequence number in the log. */
  readonly seq: number;
  readonly message: Message;
  readonly state: ParkedState;
  /** The last error, as a string. */
  readonly error: string | null;
  readonly reason: string | null;
  /** How many attempts have failed. */
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When the message is tried next; null if that depends on an operator or on an earlier message with the same key. */
  readonly nextAt: Date | null;
}

/**
 * Shows an outbox to an operator, and lets the operator control it. Stores provide it as their `admin`. A web page or a
 * command-line tool that uses this interface works with any such store.
 *
 * Every method accepts an `AbortSignal`, and rejects with `NOT_ALLOWED` if the database role lacks a privilege.
 */
export interface OutboxAdmin {
  /**
   * Returns the state of every destination, at a cost that does not grow with the log. If `default` has not been
   * created yet, but there are messages that only `default` will publish, the result includes `default` in the state
   * that its first relay would find.
   */
  destinations(options?: StoreCallOptions): Promise<readonly DestinationState[]>;
  /**
   * Adds a destination. The options say which topics it publishes, and where in the log it starts. If a relay starts
   * for a destination that was never added, the relay creates the destination, which then starts at the beginning of
   * the log.
   *
   * @throws MessengerError `CONFLICT` if a destination with that name already exists.
   */
  addDestination(name: string, options: AddDestinationOptions): Promise<void>;
  /**
   * Sets how long cleaning waits for a destination without a relay.
   *
   * @throws MessengerError `UNKNOWN_DESTINATION`.
   */
  updateDestination(name: string, options: UpdateDestinationOptions): Promise<void>;
  /**
   * Removes a destination and everything that the store has recorded about it.
   *
   * @returns how many messages were removed with the destination.
   * @throws MessengerError `CONFLICT` while a relay serves the destination, or if the destination has unpublished
   *   messages or dead letters and `discard` is not true; `UNKNOWN_DESTINATION`.
   */
  removeDestination(name: string, options?: RemoveDestinationOptions): Promise<RemovedDestination>;
  /**
   * Returns parked messages, including blocked ones but not dead letters. They are complete, and in the order in which
   * they were stored.
   *
   * @throws MessengerError `INVALID_OPTION`; `UNKNOWN_DESTINATION`.
   */
  parked(options?: ParkedOptions): Promise<readonly ParkedMessage[]>;
  /**
   * Returns dead letters and blocked messages. They are complete, and in the order in which they were stored.
   *
   * @throws MessengerError `INVALID_OPTION`; `UNKNOWN_DESTINATION`.
   */
  deadLetters(options?: DeadLettersOptions): Promise<readonly DeadLetter[]>;
  /**
   * Makes relays try dead letters and blocked messages again, in order. It also works while relays are running. A relay
   * notices the call within a second. From then on, it publishes the requeued messages before later messages with the
   * same keys that are still unpublished.
   *
   * @returns how many messages were requeued.
   * @throws MessengerError `INVALID_OPTION` if neither a filter nor `all` is given; `UNKNOWN_DESTINATION`.
   */
  requeue(selection: DeadLetterSelection): Promise<number>;
  /**
   * Permanently deletes dead letters and blocked messages. Relays then publish the later messages with the same keys.
   *
   * @returns how many messages were deleted.
   * @throws as `requeue` does.
   */
  discard(selection: DeadLetterSelection): Promise<number>;
}

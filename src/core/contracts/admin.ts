import type { StoreCallOptions } from './call-options.js';
import type { Message } from './message.js';

/**
 * The state of a destination. Counts of messages stop at 10,000, so this number means 10,000 or more. Times come from
 * the database's clock.
 */
export interface DestinationState {
  readonly name: string;
  /**
   * The topics that the destination publishes, in addition to messages that are addressed to it. null: all topics, and
   * messages without a topic.
   */
  readonly topics: readonly string[] | null;
  readonly partitions: number;
  /** How many of the destination's partitions are held by a relay now. */
  readonly held: number;
  /** How many relays work on the destination, or wait for their share of its partitions. */
  readonly relays: number;
  /**
   * How many of the newest 10,000 messages of the log are committed and not settled yet. Such a message was not
   * published, or the store does not know yet that it was.
   */
  readonly pending: number;
  /** Whether older messages of the log are pending too. */
  readonly morePending: boolean;
  /** Milliseconds since the oldest pending message was stored; null if no message is pending. */
  readonly oldestPending: number | null;
  /**
   * How many messages are parked and not dead letters. They wait for another attempt, for an earlier message of their
   * key, for their time, or for an operator.
   */
  readonly parked: number;
  /** How many of the `parked` messages are blocked: they wait for an operator, and their key waits behind them. */
  readonly blocked: number;
  readonly dead: number;
  /** When the destination was added; null if a starting relay created it. */
  readonly createdAt: Date | null;
  /** Until when a relay worked on the destination; null if no relay ever did. */
  readonly activeAt: Date | null;
  /**
   * Since when no relay has worked on the destination, while messages wait for it and keep cleaning waiting. If it
   * never had a relay and was not added, this is when the oldest of those messages was stored. Otherwise null.
   */
  readonly stalledSince: Date | null;
  /** How many milliseconds the destination can be without a relay; null for no limit. */
  readonly forgetAfter: number | null;
  /**
   * When the destination was forgotten, because it had been without a relay for longer than `forgetAfter`. Since then
   * cleaning does not wait for it, and relays refuse to work on it. null if it was not forgotten.
   */
  readonly forgottenAt: Date | null;
}

/** The options of `addDestination`. Durations are in milliseconds. */
export interface AddDestinationOptions extends StoreCallOptions {
  /**
   * Which messages the destination publishes. `'beginning'` means all messages that are still in the log. `'end'` means
   * messages that are stored from now on. A Date means messages that were stored at that time or later, by the
   * database's clock. The destination always publishes the messages of transactions that are open while it is added. It
   * can also publish a few messages that other transactions stored at the same instant as the given time.
   */
  readonly from: 'beginning' | 'end' | Date;
  /**
   * The topics that the destination publishes, in addition to messages that are addressed to it. With `[]` it publishes
   * only the messages that are addressed to it.
   * @default all topics, and messages without a topic
   */
  readonly topics?: readonly string[] | undefined;
  /**
   * How long the destination can be without a relay before cleaning no longer waits for it: 60,000 or more.
   * @default no limit
   */
  readonly forgetAfter?: number | undefined;
}

/** The counts of messages that were removed with a destination. */
export type RemovedDestination = Pick<DestinationState, 'pending' | 'morePending' | 'parked' | 'dead'>;

/** The options of `updateDestination`. Durations are in milliseconds. */
export interface UpdateDestinationOptions extends StoreCallOptions {
  /**
   * How long the destination can be without a relay before cleaning no longer waits for it: 60,000 or more; null for no
   * limit.
   */
  readonly forgetAfter: number | null;
}

/** The options of `removeDestination`. */
export interface RemoveDestinationOptions extends StoreCallOptions {
  /** Remove the destination even if unpublished messages or dead letters are lost with it. @default false */
  readonly discard?: boolean | undefined;
}

/** Selects messages that wait for an operator. A message must match every given filter. */
export interface DeadLetterFilter extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only messages with these ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /** `dead`: dead letters, whose key went on. `blocked`: messages behind which their key waits. @default both */
  readonly state?: 'dead' | 'blocked' | undefined;
  /** Only messages whose last error contains this text. */
  readonly error?: string | undefined;
  /** Only messages that were given up at this time or later, by the database's clock. */
  readonly since?: Date | undefined;
  /** Only messages that were given up before this time, by the database's clock. */
  readonly until?: Date | undefined;
}

/** The options of `deadLetters`. */
export interface DeadLettersOptions extends DeadLetterFilter {
  /** How many messages at most: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /** Only messages after this `seq`: give the `seq` of the last message of the previous page. @default 0 */
  readonly after?: number | undefined;
}

/** The options of `requeue` and `discard`. */
export interface DeadLetterSelection extends DeadLetterFilter {
  /**
   * Selects all dead letters and blocked messages of the destination. Must be true if no filter but `destination` is
   * given.
   * @default false
   */
  readonly all?: boolean | undefined;
  /** Only count the selected messages, and change nothing. @default false */
  readonly dryRun?: boolean | undefined;
}

/** A complete message that waits for an operator. Times come from the database's clock. */
export interface DeadLetter {
  /** The place of the message in the order of the log. */
  readonly seq: number;
  /**
   * The message. If it is too large to read, it has no payload and no metadata here, and `error` gives its size. The
   * store still has all of it.
   */
  readonly message: Message;
  /** `dead`: a dead letter, whose key went on. `blocked`: later messages of its key wait behind this message. */
  readonly state: 'dead' | 'blocked';
  /** The text of the last error. */
  readonly error: string | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When the message was given up. */
  readonly givenUpAt: Date;
}

/**
 * Why a message is parked. `retry`: the message is tried again at its `nextAt`. `behind`: an earlier message of its key
 * comes first. `delayed`: the message waits for its `deliverAt`. `blocked`: the message was given up, and its key waits
 * behind it.
 */
export type ParkedState = 'retry' | 'behind' | 'delayed' | 'blocked';

/** The options of `parked`. It returns the messages that match every given filter. */
export interface ParkedOptions extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only messages with these ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /** @default all states */
  readonly state?: ParkedState | undefined;
  /** Only messages whose last error contains this text. */
  readonly error?: string | undefined;
  /** How many messages at most: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /** Only messages after this `seq`: give the `seq` of the last message of the previous page. @default 0 */
  readonly after?: number | undefined;
}

/**
 * A complete message that is parked: one that was not given up, or a blocked one. Times come from the database's clock.
 */
export interface ParkedMessage {
  /** The place of the message in the order of the log. */
  readonly seq: number;
  readonly message: Message;
  readonly state: ParkedState;
  /** The text of the last error. */
  readonly error: string | null;
  readonly reason: string | null;
  /** How many attempts have failed. */
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When the message is tried next; null if that depends on an earlier message of its key, or on an operator. */
  readonly nextAt: Date | null;
}

/**
 * An operator's view of an outbox, and controls for it. Stores provide it as their `admin`. A page or a command line
 * that uses this interface works with any such store.
 *
 * Every method accepts an `AbortSignal`, and rejects with `NOT_ALLOWED` if the role lacks the rights.
 */
export interface OutboxAdmin {
  /**
   * Returns the state of every destination, at a cost that does not grow with the log. If there are messages that no
   * destination publishes yet, the result includes `default`, in the state in which its first relay would start.
   */
  destinations(options?: StoreCallOptions): Promise<readonly DestinationState[]>;
  /**
   * Adds a destination. It publishes all topics or some of them. It starts at the beginning of the log, at its end, or
   * at a given time. A destination that nobody adds starts at the beginning of the log when its first relay starts.
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
   * Removes a destination and everything that the store records about it.
   *
   * @returns how many messages were removed with the destination.
   * @throws MessengerError `CONFLICT` while a relay works on the destination, or if it has unpublished messages or dead
   *   letters and `discard` is not set; `UNKNOWN_DESTINATION`.
   */
  removeDestination(name: string, options?: RemoveDestinationOptions): Promise<RemovedDestination>;
  /**
   * Returns parked messages that were not given up, and blocked messages. They are complete, and in the order in which
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
   * Makes relays try dead letters and blocked messages again, in order. It also works while relays run. The messages go
   * before all later messages of their keys that are not published yet when the relay notices the call, within a
   * second.
   *
   * @returns how many messages were requeued.
   * @throws MessengerError `INVALID_OPTION` if neither a filter nor `all` is given; `UNKNOWN_DESTINATION`.
   */
  requeue(selection: DeadLetterSelection): Promise<number>;
  /**
   * Deletes dead letters and blocked messages for ever. Their keys go on.
   *
   * @returns how many messages were deleted.
   * @throws as `requeue` does.
   */
  discard(selection: DeadLetterSelection): Promise<number>;
}

import type { StoreCallOptions } from './call-options.js';
import type { Message } from './message.js';

/** How a destination does. Counts go up to 10,000: that, or more. Times by the database's clock. */
export interface DestinationState {
  readonly name: string;
  /** The topics that it publishes, beside what is for it alone; null for all of them, and messages without one. */
  readonly topics: readonly string[] | null;
  readonly partitions: number;
  /** How many of its partitions a relay holds now. */
  readonly held: number;
  /** How many relays work on it, or wait for their share. */
  readonly relays: number;
  /** Committed messages of the newest 10,000 of the log that are not settled yet: not, or not known to be, published. */
  readonly pending: number;
  /** Whether there are pending messages beyond these. */
  readonly morePending: boolean;
  /** Milliseconds since the oldest pending message was stored; null where none is pending. */
  readonly oldestPending: number | null;
  /** Parked messages: to be tried again, behind others of their key, or until their time. */
  readonly parked: number;
  /** Of the parked, those whose key waits behind them for an operator. */
  readonly blocked: number;
  readonly dead: number;
  /** When it was added; null where a relay made it by starting. */
  readonly createdAt: Date | null;
  /** Until when a relay worked on it; null if none ever did. */
  readonly activeAt: Date | null;
  /** Since when no relay has worked on it, while messages wait for it and it holds up cleaning; of one that never had a relay and was not added, since when the oldest of them waits; null otherwise. */
  readonly stalledSince: Date | null;
  /** How long it may be without a relay, in milliseconds; null for ever. */
  readonly forgetAfter: number | null;
  /** When that was over: cleaning has not waited for it since, and relays refuse it. */
  readonly forgottenAt: Date | null;
}

/** How a destination is added. Durations in milliseconds. */
export interface AddDestinationOptions extends StoreCallOptions {
  /**
   * What it publishes: everything that is still in the log (`'beginning'`), what is stored from now on
   * (`'end'`), or what was stored at a time or later, by the database's clock. Messages of transactions that
   * are open at the moment of adding are always part of it; a few that were stored within the
   * same instant as the given time, by other transactions, may be.
   */
  readonly from: 'beginning' | 'end' | Date;
  /**
   * The topics that it publishes, beside messages that are for it alone: with `[]` nothing else.
   * @default all of them, and messages without one
   */
  readonly topics?: readonly string[] | undefined;
  /** How long it may be without a relay before cleaning no longer waits for it: 60,000 or more. @default for ever */
  readonly forgetAfter?: number | undefined;
}

/** What was removed with a destination. */
export type RemovedDestination = Pick<DestinationState, 'pending' | 'morePending' | 'parked' | 'dead'>;

/** What `updateDestination` can be told. Durations in milliseconds. */
export interface UpdateDestinationOptions extends StoreCallOptions {
  /** How long it may be without a relay before cleaning no longer waits for it: 60,000 or more; null for ever. */
  readonly forgetAfter: number | null;
}

/** What `removeDestination` can be told. */
export interface RemoveDestinationOptions extends StoreCallOptions {
  /** Remove it although messages, dead letters among them, go with it. @default false */
  readonly discard?: boolean | undefined;
}

/** Which of the messages that wait for an operator are meant: those for which everything that is given holds. */
export interface DeadLetterFilter extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only these message ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /** Dead letters, whose key went on, or messages that their key waits behind. @default both */
  readonly state?: 'dead' | 'blocked' | undefined;
  /** Only those whose last error contains this text. */
  readonly error?: string | undefined;
  /** Only those given up at this time or later, by the database's clock. */
  readonly since?: Date | undefined;
  /** Only those given up before this time. */
  readonly until?: Date | undefined;
}

/** What `deadLetters` can be told. */
export interface DeadLettersOptions extends DeadLetterFilter {
  /** How many at most: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /** Only those behind this one: the `seq` of the last of the page before. @default 0 */
  readonly after?: number | undefined;
}

/** What `requeue` and `discard` can be told. */
export interface DeadLetterSelection extends DeadLetterFilter {
  /** Needed where nothing else says which of the destination's: then all of them. @default false */
  readonly all?: boolean | undefined;
  /** Only count them, and change nothing. @default false */
  readonly dryRun?: boolean | undefined;
}

/** A message that waits for an operator, whole. Times by the database's clock. */
export interface DeadLetter {
  /** Its place in the order of the log. */
  readonly seq: number;
  /** Without payload and metadata where it is too large to be read: `error` tells its size, and it is kept whole. */
  readonly message: Message;
  /** `blocked`: later messages of its key wait behind it. */
  readonly state: 'dead' | 'blocked';
  /** The last error's text. */
  readonly error: string | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When it was given up. */
  readonly givenUpAt: Date;
}

/**
 * Why a message waits: `retry`, it is tried again at its `nextAt`; `behind`, an earlier message of its key comes first;
 * `delayed`, it waits for its `deliverAt`; `blocked`, it was given up and its key waits behind it.
 */
export type ParkedState = 'retry' | 'behind' | 'delayed' | 'blocked';

/** What `parked` can be told: those are meant for which everything that is given holds. */
export interface ParkedOptions extends StoreCallOptions {
  /** @default 'default' */
  readonly destination?: string | undefined;
  /** Only these message ids. */
  readonly ids?: readonly string[] | undefined;
  readonly key?: string | undefined;
  readonly topic?: string | undefined;
  /** @default all of them */
  readonly state?: ParkedState | undefined;
  /** Only those whose last error contains this text. */
  readonly error?: string | undefined;
  /** How many at most: 1 to 10,000. @default 100 */
  readonly limit?: number | undefined;
  /** Only those behind this one: the `seq` of the last of the page before. @default 0 */
  readonly after?: number | undefined;
}

/** A message that is parked and not given up, or blocked, whole. Times by the database's clock. */
export interface ParkedMessage {
  /** Its place in the order of the log. */
  readonly seq: number;
  readonly message: Message;
  readonly state: ParkedState;
  /** The last error's text. */
  readonly error: string | null;
  readonly reason: string | null;
  /** How many attempts have failed. */
  readonly attempts: number;
  readonly storedAt: Date;
  readonly firstFailedAt: Date | null;
  readonly lastFailedAt: Date | null;
  /** When it is tried next; null where that depends on an earlier message of its key, or on an operator. */
  readonly nextAt: Date | null;
}

/**
 * What an operator sees and steers, of any store that has it as its `admin`: a page or a command line that is built on
 * this knows no store.
 *
 * All of it takes an `AbortSignal` and is refused, with `NOT_ALLOWED`, to a role without the rights.
 */
export interface OutboxAdmin {
  /**
   * How every destination does, at a cost that does not grow with the log. Where messages are stored that no
   * destination publishes yet, `default` is among them, as it would begin with its first relay.
   */
  destinations(options?: StoreCallOptions): Promise<readonly DestinationState[]>;
  /**
   * Adds a destination: from its beginning, its end or a time on, all topics or some. One that is not added begins
   * at the beginning, when its first relay starts.
   *
   * @throws MessengerError `CONFLICT` where there is one of that name already.
   */
  addDestination(name: string, options: AddDestinationOptions): Promise<void>;
  /** Sets for how long cleaning waits for a destination without a relay. @throws MessengerError `UNKNOWN_DESTINATION`. */
  updateDestination(name: string, options: UpdateDestinationOptions): Promise<void>;
  /**
   * Removes a destination with everything that is known of it, and tells what went with it.
   *
   * @throws MessengerError `CONFLICT` while a relay works on it, and where it has unpublished messages or
   *   dead letters, unless told to `discard` them; `UNKNOWN_DESTINATION`.
   */
  removeDestination(name: string, options?: RemoveDestinationOptions): Promise<RemovedDestination>;
  /**
   * Messages that are parked and not given up, and blocked ones, whole, in the order in which they were stored.
   *
   * @throws MessengerError `INVALID_OPTION`; `UNKNOWN_DESTINATION`.
   */
  parked(options?: ParkedOptions): Promise<readonly ParkedMessage[]>;
  /**
   * Dead letters and blocked messages, whole, in the order in which they were stored.
   *
   * @throws MessengerError `INVALID_OPTION`; `UNKNOWN_DESTINATION`.
   */
  deadLetters(options?: DeadLettersOptions): Promise<readonly DeadLetter[]>;
  /**
   * Has dead letters and blocked messages tried again, also while relays run: in order, and before later messages of
   * their keys that are not published when the relay notices, within a second.
   *
   * @returns how many. @throws MessengerError `INVALID_OPTION` where nothing says which; `UNKNOWN_DESTINATION`.
   */
  requeue(selection: DeadLetterSelection): Promise<number>;
  /** Deletes dead letters and blocked messages, for ever; their keys go on. @returns how many. @throws as `requeue`. */
  discard(selection: DeadLetterSelection): Promise<number>;
}

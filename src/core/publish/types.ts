import type { Calls } from './calls.js';
import type { Gate, Pass } from './circuit-breaker.js';
import type { Clock } from '../util/clock.js';
import type { FailureKind, PublishError } from '../errors.js';
import type { Page, ToPark } from '../contracts/feed.js';
import type { Message } from '../contracts/message.js';
import type { Pace } from './pace.js';
import type { BatchPublisher, PublishResult } from '../contracts/publisher.js';
import type { PolicyOf } from './retry-policy.js';
import type { OutageDetector } from './outage-detector.js';
import type { Bell, Cut } from '../util/async.js';

/** A failed attempt to publish one message. */
export interface Attempt {
  readonly message: Message;
  readonly error: Error;
  readonly kind: FailureKind;
  /** How many attempts have failed so far, including this one. */
  readonly attempts: number;
}

/** Tells a page of the log about the messages before it. */
export interface Earlier {
  /** Whether a message with this key was parked. If so, the page's messages with this key have to wait behind it. */
  isParked(key: string): boolean;
  /**
   * Whether an earlier page is still busy with this key. If so, the page's messages with this key wait until `progress`
   * rings.
   */
  isBusy(key: string): boolean;
}

/**
 * Stands for no earlier messages. Pages of parked messages use it, because new messages with the same keys wait behind
 * parked ones.
 */
export const NONE_EARLIER: Earlier = { isParked: () => false, isBusy: () => false };

/** The options for publishing any page. */
export interface PublishPageOptions {
  readonly publisher: BatchPublisher;
  /** Rings when any page has made progress. */
  readonly progress: Bell;
  /** The time limit for one call to the publisher, in milliseconds. */
  readonly timeout: number;
  /** The maximum size of one call to the publisher in bytes, as measured by `sizeOf`. Can be `Infinity`. */
  readonly batchBytes: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  /**
   * Aborts when the lease is lost. Publishing then stops at once, and rejects. This property is read again before each
   * request.
   */
  readonly lost: AbortSignal;
  /**
   * Aborts when the relay stops, or gives partitions away. Nothing more is sent then, but the relay waits for messages
   * in flight.
   */
  readonly stop: AbortSignal;
  /** When the relay stops waiting for messages in flight after `stop`. @default never */
  readonly cut?: Cut | undefined;
  /** Called with the number of messages that were still in flight when `cut` aborted. They will be published again. */
  readonly onCut?: ((messages: number) => void) | undefined;
  /** Tracks the calls. Absent if the publisher itself tracks a call for each message. */
  readonly calls?: Calls | undefined;
  readonly circuit: Gate;
  readonly outageDetector: OutageDetector;
  /** How many times messages with similar failures are tried again, as in a broker outage, before they are parked. */
  readonly probes: number;
  readonly clock: Clock;
  /** If given, messages in a slow call are parked until the call is answered. */
  readonly pace?: Pace | undefined;
  /**
   * Called once for each failure after which a message is parked. `isLast` is true if the message will not be tried
   * again.
   */
  readonly onFailure: (error: PublishError, attempt: Attempt, isLast: boolean) => void;
  /** Called with the acknowledged messages, and the duration of the request in milliseconds. */
  readonly onPublished?: ((messages: readonly Message[], duration: number) => void) | undefined;
}

/** The outcome of a page. Every message that is neither parked nor untried was acknowledged. */
export interface PageOutcome {
  readonly acknowledged: number;
  readonly toPark: readonly ToPark[];
  /** Messages that were not sent, or whose result is unknown, when `stop` aborted. */
  readonly untried: readonly ToPark[];
  /** The slow calls. Their messages are in `toPark`, and stay parked until the calls are answered. */
  readonly late: readonly Late[];
}

/** Whether there is anything to settle. There is nothing if no message in the page was tried. */
export function hasChanged({ acknowledged, toPark }: PageOutcome): boolean {
  return acknowledged > 0 || toPark.length > 0;
}

/** A call to the publisher that had not been answered when the rest of its page was. */
export interface Late {
  /** The messages in the call. */
  readonly page: Page & { readonly attempts: readonly number[] };
  readonly results: Promise<readonly PublishResult[]>;
  /** When the call was made, by the clock. */
  readonly sentAt: number;
  readonly pass: Pass;
}

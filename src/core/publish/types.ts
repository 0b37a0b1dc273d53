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
  /** Failed attempts so far, including this one. */
  readonly attempts: number;
}

/** What a page of the log needs to know about the messages before it. */
export interface Earlier {
  /** Whether a message of this key was parked. Then the page's messages of this key have to wait behind it. */
  isParked(key: string): boolean;
  /**
   * Whether an earlier page is still busy with this key. Then the page's messages of this key wait until `progress`
   * rings.
   */
  isBusy(key: string): boolean;
}

/**
 * Says that there are no earlier messages. This is so for a page of parked messages, because new messages of their keys
 * wait for them.
 */
export const NONE_EARLIER: Earlier = { isParked: () => false, isBusy: () => false };

/** The options for publishing any page. */
export interface PublishPageOptions {
  readonly publisher: BatchPublisher;
  /** Rings when any page has made progress. */
  readonly progress: Bell;
  /** How many milliseconds one call to the publisher can take. */
  readonly timeout: number;
  /** How many bytes one call to the publisher can take, by `sizeOf`. It can be `Infinity`. */
  readonly batchBytes: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  /**
   * Aborts when the lease is lost. Publishing then stops at once, and rejects. It is read again before each request.
   */
  readonly lost: AbortSignal;
  /**
   * Aborts when the relay stops, or gives partitions away. Nothing more is sent then, but the relay waits for messages
   * in flight.
   */
  readonly stop: AbortSignal;
  /** When the relay stops waiting for messages in flight after `stop`. @default never */
  readonly cut?: Cut | undefined;
  /**
   * Called with the number of messages that were in flight at the `cut` and not acknowledged. They are published again.
   */
  readonly onCut?: ((messages: number) => void) | undefined;
  /** Watches the calls. Absent if the publisher itself watches them, message by message. */
  readonly calls?: Calls | undefined;
  readonly circuit: Gate;
  readonly outageDetector: OutageDetector;
  /** How often messages that failed alike are tried again, as after a failure of the broker, before they are parked. */
  readonly probes: number;
  readonly clock: Clock;
  /** If given, a message whose call is slow is parked while its answer is waited for. */
  readonly pace?: Pace | undefined;
  /** Called once for each failure after which a message is parked or given up. `isLast` says that it is given up. */
  readonly onFailure: (error: PublishError, attempt: Attempt, isLast: boolean) => void;
  /** Called with the messages that were acknowledged, and how long the request took, in milliseconds. */
  readonly onPublished?: ((messages: readonly Message[], duration: number) => void) | undefined;
}

/** The outcome of a page. Every message that is neither parked nor untried was acknowledged. */
export interface PageOutcome {
  readonly acknowledged: number;
  readonly toPark: readonly ToPark[];
  /** Messages that were not sent, or whose result is unknown, when `stop` aborted. */
  readonly untried: readonly ToPark[];
  /** Calls that were slow. Their messages are among `toPark` until the calls are answered. */
  readonly late: readonly Late[];
}

/** Whether there is anything to settle. If no message of a page was tried, the page stays as it was. */
export function hasChanged({ acknowledged, toPark }: PageOutcome): boolean {
  return acknowledged > 0 || toPark.length > 0;
}

/** A call to the publisher that had no answer yet when the rest of its page was answered. */
export interface Late {
  /** The messages in the call. */
  readonly page: Page & { readonly attempts: readonly number[] };
  readonly results: Promise<readonly PublishResult[]>;
  /** When the call was made, by the clock. */
  readonly sentAt: number;
  readonly pass: Pass;
}

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

/** A failed attempt of one message. */
export interface Attempt {
  readonly message: Message;
  readonly error: Error;
  readonly kind: FailureKind;
  /** Failed attempts so far, this one included. */
  readonly attempts: number;
}

/** What is to be known of the messages before those of a page of the log. */
export interface Earlier {
  /** Whether one of this key was parked, so that the page's have to wait behind it. */
  isParked(key: string): boolean;
  /** Whether an earlier page is not done with this key yet: then its messages wait until `progress` rings. */
  isBusy(key: string): boolean;
}

/** There are none, as for messages that were parked: what is new of their keys waits for them. */
export const NONE_EARLIER: Earlier = { isParked: () => false, isBusy: () => false };

/** What publishing any page needs to know. */
export interface PublishPageOptions {
  readonly publisher: BatchPublisher;
  /** Rings when any page has got further. */
  readonly progress: Bell;
  /** Milliseconds for one call of the publisher. */
  readonly timeout: number;
  /** Bytes of one call of the publisher, by `sizeOf`; may be `Infinity`. */
  readonly batchBytes: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  /** Asked anew before each request, and aborted when the lease is lost: publishing stops at once, by rejecting. */
  readonly lost: AbortSignal;
  /** Aborted when the relay is to stop, or gives partitions away: what is in flight is waited for, and nothing more is sent. */
  readonly stop: AbortSignal;
  /** When what is in flight is no longer waited for, after `stop`. @default never */
  readonly cut?: Cut | undefined;
  /** Told how many messages were in flight then, and not acknowledged: they are published again. */
  readonly onCut?: ((messages: number) => void) | undefined;
  /** Watches the calls; absent where the publisher itself does so, message by message. */
  readonly calls?: Calls | undefined;
  readonly circuit: Gate;
  readonly outageDetector: OutageDetector;
  /** How often what failed alike is tried again as such before it is parked. */
  readonly probes: number;
  readonly clock: Clock;
  /** Given where a message whose call is slow is parked while it is waited for. */
  readonly pace?: Pace | undefined;
  /** Told of every attempt that failed by the message itself, once, and whether it was the last. */
  readonly onFailure: (error: PublishError, attempt: Attempt, isLast: boolean) => void;
  /** Told of what was acknowledged, and how long the request took, in milliseconds. */
  readonly onPublished?: ((messages: readonly Message[], duration: number) => void) | undefined;
}

/** What became of a page: whatever is neither parked nor untried was acknowledged. */
export interface PageOutcome {
  readonly acknowledged: number;
  readonly toPark: readonly ToPark[];
  /** Messages that were not sent, or of which nothing is known, when `stop` aborted. */
  readonly untried: readonly ToPark[];
  /** Calls that were slow: their messages are among `toPark`, until they are answered. */
  readonly late: readonly Late[];
}

/** Whether there is anything to settle: a page of which nothing was tried stays as it was. */
export function hasChanged({ acknowledged, toPark }: PageOutcome): boolean {
  return acknowledged > 0 || toPark.length > 0;
}

/** A call of the publisher that was not answered when the rest of its page was. */
export interface Late {
  /** Its messages. */
  readonly page: Page & { readonly attempts: readonly number[] };
  readonly results: Promise<readonly PublishResult[]>;
  /** By the clock. */
  readonly sentAt: number;
  readonly pass: Pass;
}

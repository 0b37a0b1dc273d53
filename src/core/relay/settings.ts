import type { Calls } from '../publish/calls.js';
import type { Circuit } from '../publish/circuit-breaker.js';
import type { Clock } from '../util/clock.js';
import type { FailureKind } from '../errors.js';
import type { EventHandler } from '../contracts/events.js';
import type { ErrorLogger } from '../contracts/logger.js';
import type { Pace } from '../publish/pace.js';
import type { BatchPublisher } from '../contracts/publisher.js';
import type { PolicyOf } from '../publish/retry-policy.js';
import type { Store } from '../contracts/store.js';
import type { Suspicion } from '../publish/outage-detector.js';
import type { Alike, Outages } from './outages.js';

/** Everything that publishing and cleaning work with: made once, by `relayOptions`. Durations in milliseconds. */
export interface RelaySettings {
  readonly store: Store;
  readonly publisher: BatchPublisher;
  readonly destination: string;
  readonly pageSize: number;
  readonly pipelineDepth: number;
  /** Bytes of one call of the publisher; may be `Infinity`. */
  readonly batchBytes: number;
  readonly interval: number;
  readonly publishTimeout: number;
  readonly storeOutageLimit: number;
  readonly stopTimeout: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  readonly circuit: Circuit;
  readonly suspicion: Suspicion;
  /** The calls of the publisher that are in flight. */
  readonly calls: Calls;
  /** Whether the batch form of the publisher watches `calls` itself, message by message. */
  readonly watchesCalls: boolean;
  readonly pace: Pace;
  readonly errorLogger: ErrorLogger;
  /** What the logger is told of errors that come again and again. */
  readonly alike: Alike;
  /** What the logger is told of a datastore that fails. */
  readonly outages: Outages;
  readonly onEvent: EventHandler | undefined;
  /** How old a published message has to be to be cleaned away; `undefined`: it is kept. */
  readonly cleanUp: number | undefined;
  readonly clock: Clock;
}

/** The same of a relay that stays. */
export interface RelayOptions extends RelaySettings {
  /** What it is known by to the other relays of its destination: see `FeedOptions`. */
  readonly relay: string;
}

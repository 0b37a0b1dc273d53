import type { Circuit } from './circuit.js';
import type { Clock } from './clock.js';
import type { FailureKind } from './errors.js';
import type { EventHandler } from './events.js';
import type { ErrorLogger } from './logger.js';
import type { Pace } from './pace.js';
import type { BatchPublisher } from './publisher.js';
import type { PolicyOf } from './retry.js';
import type { Store } from './store.js';
import type { Suspicion } from './suspicion.js';

/** Everything a relay works with: made by `relayOptions`. Durations in milliseconds. */
export interface RelayOptions {
  readonly store: Store;
  readonly publisher: BatchPublisher;
  readonly destination: string;
  /** What it is known by to the other relays of its destination: see `FeedOptions`. */
  readonly relay: string;
  readonly pageSize: number;
  readonly pipelineDepth: number;
  /** Bytes of one call of the publisher; may be `Infinity`. */
  readonly batchBytes: number;
  readonly interval: number;
  readonly publishTimeout: number;
  readonly storeOutageLimit: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  readonly circuit: Circuit;
  readonly suspicion: Suspicion;
  readonly pace: Pace;
  readonly errorLogger: ErrorLogger;
  readonly onEvent: EventHandler | undefined;
  /** How old a published message has to be to be cleaned away; `undefined`: it is kept. */
  readonly cleanUp: number | undefined;
  readonly clock: Clock;
}

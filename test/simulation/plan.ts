import type { MessengerOptions } from '../../src/core/relay/options.js';
import type { Chance } from './chance.js';
import { FAULTS, type FaultName } from './faults.js';
import type { PUBLISHERS } from './publisher.js';

export interface DestinationPlan {
  readonly topics?: readonly string[];
  readonly relays: number;
  readonly publisher: keyof typeof PUBLISHERS;
  readonly messenger: MessengerOptions;
  /** Page size times pipeline depth. */
  readonly inFlight: number;
}

/** What a seed decides before anything happens. Durations in virtual milliseconds. */
export interface Plan {
  readonly partitions: number;
  readonly keys: number;
  readonly transactions: number;
  readonly perTransaction: number;
  readonly lease: number;
  /** How long things go wrong. */
  readonly span: number;
  readonly maxAttempts: number;
  /** Only single messages and whole destinations fail: nothing else may be the slower for it. */
  readonly calm: boolean;
  /** What a message that nothing is wrong with may take, where it is calm. */
  readonly latency: number;
  readonly possible: ReadonlySet<FaultName>;
  readonly destinations: readonly DestinationPlan[];
}

/** Where blows fall at points of the test's choice: enough goes wrong that there is something to hand over. */
const QUIET: readonly FaultName[] = [
  'broker: message is refused',
  'broker: answer is slow',
  'message: refused for ever',
  'wake-up is lost',
];

const CALM: readonly FaultName[] = [
  'message: fails for ever',
  'message: refused for ever',
  'broker: never heals',
  'broker: request is slow',
  'broker: answer is slow',
];

export function planOf(chance: Chance, quiet: boolean): Plan {
  const { whether, between, pick } = chance;
  const calm = !quiet && whether(0.1);
  // Not all of them everywhere: what goes wrong too often hides what would go wrong after it ("swarm testing").
  const names = (Object.keys(FAULTS) as FaultName[]).filter(
    (name) => whether(0.35) && name !== 'message: fails for ever',
  );
  const possible = new Set(quiet ? QUIET : calm ? CALM : names);
  const maxAttempts = between(2, 6);
  return {
    partitions: pick([1, 2, 3, 4, 8]),
    keys: between(1, 6),
    transactions: quiet ? between(4, 8) : between(4, 14),
    perTransaction: between(1, 6),
    lease: 300,
    span: quiet ? between(150, 300) : between(300, 900),
    maxAttempts,
    calm,
    latency: 3_000,
    possible,
    destinations: Array.from({ length: pick([1, 1, 2]) }, () => {
      const publishBatchSize = between(1, 7);
      const pipelineDepth = between(1, 4);
      return {
        ...(whether(0.2) && { topics: [pick(['a', 'b'])] }),
        relays: between(1, 3),
        publisher: pick(['single', 'batch', 'ordered', 'lanes'] as const),
        inFlight: publishBatchSize * pipelineDepth,
        messenger: {
          publishBatchSize,
          pipelineDepth,
          concurrency: between(1, 4),
          interval: 60,
          storeOutageLimit: pick([0, 200, 3_600_000]),
          retry: { minDelay: between(5, 20), maxDelay: between(50, 150), maxAttempts },
          // Never both: what waits behind a blocked key counts, and would hold up all until an operator decides.
          ...pick<MessengerOptions>([
            {},
            // Nor with what is refused for ever: a topic of which so much is refused alike, and nothing is
            // acknowledged, is the operator's.
            possible.has('message: refused for ever') ? {} : { maxParked: between(1, 5) },
            { topics: { b: { retry: { onExhausted: 'block-key' } } } },
          ]),
        },
      };
    }),
  };
}

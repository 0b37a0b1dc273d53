/** The model of a broker, and the publishers that reach it from a process. */
import { PublishError, type FailureKind } from '../../src/core/errors.js';
import type { Message } from '../../src/core/contracts/message.js';
import type { Outstanding } from '../../src/core/publish/pace.js';
import { Room, sendInLanes } from '../../src/core/publish/lanes.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishOptions,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import type { Chance } from './chance.js';
import type { Process, Timeline } from './clock.js';
import type { FaultName, Faults, Note } from './faults.js';
import type { Network } from './network.js';
import { nameOf, type Handed, type Oracle } from './oracle.js';
import type { Destination, Row } from './server.js';

/** When a relay gives up a request that is not answered. Milliseconds. */
export const PUBLISH_TIMEOUT = 60;

/** What a broker makes of a message, whatever else happens. */
type Nature = 'fine' | Extract<FaultName, `message: ${string}`>;

const NATURES = [
  'message: fails for ever',
  'message: refused for ever',
  'message: refused for ever, then not',
] as const satisfies readonly Nature[];

/** A mistake of a publisher that an adapter might make. */
export type PublisherFlaw =
  /** It acknowledges what it has sent, and not what the broker has. */
  | 'acknowledges what is sent'
  /** It does not look at the results of single messages. */
  | 'ignores failures in a batch'
  /** It says that it keeps the order of keys, and goes on with a key after a failure. */
  | 'does not keep the order of keys';

const refusal = (kind: FailureKind, why: string): PublishResult => ({
  acknowledged: false,
  error: new PublishError(why, { kind }),
});

/** The broker of one destination. */
export class Broker {
  /** Until when it refuses every connection. */
  outageUntil = 0;
  readonly #natures = new Map<number, { nature: Nature; refusals: number }>();
  /**
   * Keys of which a message was refused: those behind it wait until it is a dead letter. Where nothing else
   * gets through, that is when something else does: until then it may be the broker that refuses.
   */
  readonly #spoiled = new Set<string | undefined>();
  readonly #world: { to: Destination; oracle: Oracle; faults: Faults; chance: Chance };

  constructor(world: { to: Destination; oracle: Oracle; faults: Faults; chance: Chance }) {
    this.#world = world;
  }

  /** Whether nothing about this message is wrong for good. */
  isFine(row: Row): boolean {
    return this.#natureOf(row).nature === 'fine';
  }

  /** A message reaches it. */
  take(handed: Handed, calm: boolean): PublishResult {
    const { to, oracle, faults } = this.#world;
    const { key } = handed.row;
    const state = this.#natureOf(handed.row);
    if (state.nature !== 'fine' && key !== undefined) this.#spoiled.add(key);
    if (state.nature === 'message: fails for ever') return refusal('retryable', 'fails for ever');
    if (state.refusals > 0) {
      state.refusals -= 1;
      oracle.refused(to, handed);
      return refusal('permanent', 'refused for ever');
    }
    if (faults.hits('broker: message is refused')) return refusal('retryable', 'refused');
    oracle.accepted(to, handed, calm && !this.#spoiled.has(key));
    return ACKNOWLEDGED;
  }

  #natureOf({ seq }: Row): { nature: Nature; refusals: number } {
    const { faults, chance } = this.#world;
    const known = this.#natures.get(seq);
    if (known) return known;
    const nature: Nature = NATURES.find((name) => faults.hits(name)) ?? 'fine';
    const refusals =
      nature === 'message: refused for ever'
        ? Infinity
        : nature === 'message: refused for ever, then not'
          ? chance.between(1, 2)
          : 0;
    const state = { nature, refusals };
    this.#natures.set(seq, state);
    return state;
  }
}

/** What a publisher works with. */
export interface PublisherWorld {
  readonly broker: Broker;
  readonly to: Destination;
  readonly oracle: Oracle;
  readonly faults: Faults;
  readonly chance: Chance;
  readonly network: Network;
  readonly timeline: Timeline;
  readonly process: Process;
  readonly calm: boolean;
  readonly flaw: PublisherFlaw | undefined;
  readonly note: Note | undefined;
}

/** The forms that publishers have. */
export const PUBLISHERS = {
  /** One message at a time: the relay sends several of different keys at once. */
  single: (world): Publisher => ({
    publish: async (message, options) => {
      const [result] = await waitingFor(world, [message], options, () => send(world, [message], false));
      if (result === undefined) throw new Error('no answer for this message');
      if (!result.acknowledged) throw result.error;
    },
  }),
  /** A batch with at most one message of each key. */
  batch: (world) => batchPublisher(world, false, (messages) => send(world, messages, false)),
  /** A batch that is in order: a failure fails what is behind it in its key. */
  ordered: (world) => batchPublisher(world, true, (messages) => send(world, messages, true)),
  /** Several requests at once, each with at most one message of a key, as the adapters for SQS and SNS send. */
  lanes: (world) => {
    const room = new Room(2);
    return batchPublisher(world, true, (messages, call) =>
      sendInLanes(messages, {
        laneOf: ({ key }) => key,
        send: (items) => untilAborted(send(world, items, false), call?.signal),
        room,
        maxItems: 3,
        call,
      }),
    );
  },
} satisfies Record<string, (world: PublisherWorld) => Publisher>;

function batchPublisher(
  world: PublisherWorld,
  batchKeepsKeyOrder: boolean,
  publishBatch: BatchPublisher['publishBatch'],
): BatchPublisher {
  return {
    batchKeepsKeyOrder,
    publishBatch: (messages, options) => waitingFor(world, messages, options, () => publishBatch(messages, options)),
    publish: () => Promise.reject(new Error('publish() of a batch form')),
  };
}

/** The engine waits for the answer until it comes, or until the engine says that it waits no longer. */
async function waitingFor<T>(
  { oracle }: PublisherWorld,
  messages: readonly Message[],
  options: PublishOptions | undefined,
  call: () => Promise<T>,
): Promise<T> {
  const done = oracle.waits(messages);
  options?.signal?.addEventListener('abort', done, { once: true });
  try {
    return await call();
  } finally {
    done();
  }
}

/** A client that gives a request up when it is told to, as those of the adapters do. */
function untilAborted<T>(request: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal?.reason as Error);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    request.then(resolve, reject).finally(() => signal?.removeEventListener('abort', onAbort));
  });
}

/** One request to the broker. */
function send(
  world: PublisherWorld,
  messages: readonly Message[],
  inOrder: boolean,
): Promise<readonly PublishResult[]> {
  const { to, oracle, faults, chance, network, timeline, process, broker, calm, flaw } = world;
  const handed = oracle.begun(to, messages, !inOrder);
  const what = () => `${process.name} -> ${to.name}: ${handed.map(({ row }) => nameOf(row)).join(', ')}`;
  world.note?.(`${what()} sent`);
  return new Promise((resolve, reject) => {
    const out = process.request();
    if (out === undefined) return;
    /** Slow against all others: some are given up before. */
    const slow = (name: FaultName) =>
      faults.hits(name) ? chance.between(PUBLISH_TIMEOUT / 2, PUBLISH_TIMEOUT * 1.2) : 0;
    const answer = (results: readonly PublishResult[]) => {
      timeline.after(network.delay() + slow('broker: answer is slow'), () => {
        process.give('network', () => {
          if (faults.hits('broker: answer is one result short')) {
            resolve(results.slice(0, -1));
            return;
          }
          if (flaw === 'ignores failures in a batch') resolve(results.map(() => ACKNOWLEDGED));
          else resolve(results);
        });
      });
    };
    const all = (result: PublishResult) => {
      answer(messages.map(() => result));
    };
    if (flaw === 'acknowledges what is sent') all(ACKNOWLEDGED);
    const late = faults.hits('broker: request arrives when it was given up') ? PUBLISH_TIMEOUT : 0;
    timeline.after(out + late + network.delay() + slow('broker: request is slow'), () => {
      if (timeline.now < broker.outageUntil || faults.hits('broker: connection fails')) {
        all(refusal('connection', 'no connection'));
      } else if (faults.hits('broker: request is refused')) {
        timeline.after(network.delay(), () => {
          process.give('network', () => {
            reject(new Error('the broker has a bad moment'));
          });
        });
      } else if (!faults.hits('broker: request is lost')) {
        world.note?.(`${what()} arrives`);
        const results = receive(
          broker,
          handed,
          inOrder && flaw !== 'does not keep the order of keys',
          calm,
          chance,
          world.note,
        );
        if (faults.hits('broker: answer is a failed connection')) all(refusal('connection', 'the connection broke'));
        else if (!faults.hits('broker: answer is lost')) answer(results);
      }
    });
  });
}

/** The messages of a request reach the broker: in their order, or in any. */
function receive(
  broker: Broker,
  handed: readonly Handed[],
  inOrder: boolean,
  calm: boolean,
  chance: Chance,
  note: Note | undefined,
): PublishResult[] {
  const results: PublishResult[] = [];
  const failed = new Set<string>();
  const places = handed.map((_, place) => place);
  if (!inOrder) places.sort(() => chance.random() - 0.5);
  for (const place of places) {
    const each = handed[place]!;
    const { key } = each.row;
    const isBehind = key !== undefined && inOrder && failed.has(key);
    const result = isBehind ? refusal('retryable', 'behind a failure of its key') : broker.take(each, calm);
    note?.(`  ${nameOf(each.row)}: ${result.acknowledged ? 'accepted' : result.error.message}`);
    if (!result.acknowledged && key !== undefined) failed.add(key);
    results[place] = result;
  }
  return results;
}

/** The publisher that the engine works with, with an ear for what the engine is told. */
export function overheard(publisher: BatchPublisher, oracle: Oracle): BatchPublisher {
  return {
    ...publisher,
    publishBatch: async (messages: readonly Message[], options?: PublishOptions) => {
      oracle.called(messages);
      const results = await publisher.publishBatch(messages, options);
      results.forEach((result, i) => {
        // By a name that no module of the engine, or of a mutant of it, has for itself.
        const { call } = result.acknowledged ? {} : (result.error as Partial<Outstanding>);
        void call?.results.then((all) => {
          oracle.told([messages[i]!], [all[call.place]!]);
        });
      });
      // What comes after the engine gave up, or is not one result per message, counts for nothing.
      if (options?.signal?.aborted !== true && results.length === messages.length) oracle.told(messages, results);
      return results;
    },
  };
}

/**
 * The promises under random failures: seeded runs of one or two relays over a store and a broker that
 * fail in every way that their contracts allow. Time is fake and chance is seeded, so a run can be
 * repeated: `ORDER_SEED=<the seed in the test's name> npx vitest run test/core/order.test.ts`.
 */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { MessengerError } from '../../src/core/errors.js';
import type { Message } from '../../src/core/contracts/message.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import {
  ACKNOWLEDGED,
  type BatchPublisher,
  type Publisher,
  type PublishResult,
} from '../../src/core/contracts/publisher.js';
import { sleep } from '../../src/core/util/async.js';
import type { Store } from '../../src/core/contracts/store.js';
import { PlainStore } from '../support/plain-store.js';
import { ListFeedStore, put, recordingLogger, refusal, seeded, textOf, unpublished } from './scripted.js';

const SEED = Number(process.env['ORDER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(process.env['ORDER_RUNS'] ?? 150);
const PUBLISH_TIMEOUT = 20;
/** Ends the text of what the broker refuses for ever. */
const POISON = '!';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** What chance decides in a run. */
interface Chance {
  readonly whether: (probability: number) => boolean;
  readonly upTo: (most: number) => number;
}

/** What the world has seen: every acknowledgement of the broker, in order. */
class Broker {
  readonly acknowledged: string[] = [];
  /** Until it is healed it fails in every way. */
  healthy = false;
  readonly #chance: Chance;

  constructor(chance: Chance) {
    this.#chance = chance;
  }

  /** Takes a message, or throws; sometimes takes it and throws all the same, or takes it too late. */
  async take(text: string): Promise<void> {
    const { whether, upTo } = this.#chance;
    if (whether(0.5)) await sleep(upTo(3));
    if (text.endsWith(POISON)) throw refusal('permanent', 'poison');
    if (!this.healthy) {
      if (whether(0.15)) throw refusal('retryable');
      if (whether(0.05)) throw refusal('connection');
      // Longer than anybody waits: it arrives when it was given up.
      if (whether(0.03)) await sleep(PUBLISH_TIMEOUT + upTo(30));
    }
    this.acknowledged.push(text);
    if (!this.healthy && whether(0.05)) throw refusal('retryable', 'the answer was lost');
  }

  plain(): Publisher {
    return { publish: (message) => this.take(textOf(message)) };
  }

  batch(batchKeepsKeyOrder: boolean): BatchPublisher {
    const resultOf = async (message: Message): Promise<PublishResult> => {
      try {
        await this.take(textOf(message));
        return ACKNOWLEDGED;
      } catch (error) {
        return { acknowledged: false, error: error as Error };
      }
    };
    return {
      ...this.plain(),
      batchKeepsKeyOrder,
      publishBatch: async (messages) => {
        const { whether } = this.#chance;
        const keys = messages.flatMap(({ key }) => key ?? []);
        if (!batchKeepsKeyOrder && new Set(keys).size < keys.length) throw new Error('two messages of a key in a call');
        if (!this.healthy && whether(0.05)) throw new Error('the whole request failed');
        const failed = new Set<string | undefined>();
        const results: PublishResult[] = [];
        for (const message of messages) {
          const isBehind = message.key !== undefined && failed.has(message.key);
          const result: PublishResult = isBehind
            ? { acknowledged: false, error: refusal('retryable', 'behind') }
            : await resultOf(message);
          if (!result.acknowledged) failed.add(message.key);
          results.push(result);
        }
        if (!this.healthy && whether(0.05)) results.pop();
        return results;
      },
    };
  }
}

/** A store of either sort, behind faults. */
interface World {
  readonly store: Store;
  readonly add: (texts: readonly string[]) => Promise<void>;
  /** Takes the relay's lease away, where there is one. */
  readonly revoke: () => void;
  /** What is neither acknowledged nor a dead letter. */
  readonly left: () => Promise<string[]>;
  readonly setHealthy: (is: boolean) => void;
}

function plainWorld(chance: Chance): World {
  const inner = new PlainStore();
  let healthy = true;
  const maybeFail = async () => {
    if (chance.whether(0.5)) await sleep(chance.upTo(2));
    if (!healthy && chance.whether(0.04)) throw new Error('the store failed');
  };
  return {
    store: {
      messages: async (batch) => {
        const listed = await inner.messages(batch);
        await maybeFail();
        return listed;
      },
      // It may fail before it has marked them, and after.
      published: async (...messages) => {
        await maybeFail();
        await inner.published(...messages);
        await maybeFail();
      },
      deletePublishedByExpiration: (age) => inner.deletePublishedByExpiration(age),
    },
    add: (texts) => put(inner, ...texts),
    revoke: () => undefined,
    left: async () => (await unpublished(inner)).filter((text) => !text.endsWith(POISON)),
    setHealthy: (is) => (healthy = is),
  };
}

function feedWorld(chance: Chance): World {
  const store = new ListFeedStore();
  let healthy = true;
  store.fault = async () => {
    if (chance.whether(0.5)) await sleep(chance.upTo(2));
    if (!healthy && chance.whether(0.04)) throw new Error('the store failed');
  };
  return {
    store,
    add: async (texts) => {
      store.add(...texts);
    },
    revoke: () => {
      if (store.held) store.revoke();
    },
    left: async () => (store.isDone ? [] : ['something']),
    setHealthy: (is) => (healthy = is),
  };
}

/** The first time that each was acknowledged, in order. */
const firsts = (texts: readonly string[]): string[] => [...new Set(texts)];

async function run(seed: number, kind: 'plain' | 'feed'): Promise<void> {
  vi.useFakeTimers({ now: 0 });
  const random = seeded(seed);
  // The jitter of the relay's pauses is part of the run.
  vi.spyOn(Math, 'random').mockImplementation(random);
  const chance: Chance = {
    whether: (probability) => random() < probability,
    upTo: (most) => Math.floor(random() * (most + 1)),
  };
  const world = kind === 'plain' ? plainWorld(chance) : feedWorld(chance);
  const broker = new Broker(chance);
  const errorLogger = recordingLogger();
  const controller = new AbortController();
  const newRelay = () => {
    const publisher = [broker.plain(), broker.batch(false), broker.batch(true)][chance.upTo(2)]!;
    return new Messenger(world.store, publisher, {
      interval: 5,
      publishBatchSize: 1 + chance.upTo(6),
      pipelineDepth: 1 + chance.upTo(3),
      publishBatchBytes: chance.whether(0.3) ? 1 + chance.upTo(200) : Infinity,
      concurrency: 1 + chance.upTo(4),
      publishTimeout: PUBLISH_TIMEOUT,
      storeOutageLimit: 3_600_000,
      retry: { minDelay: 1 + chance.upTo(5), maxDelay: 10 + chance.upTo(30) },
      errorLogger,
    }).start({ signal: controller.signal });
  };
  const relays = kind === 'plain' ? [newRelay()] : [newRelay(), newRelay()];

  // A store that fails at start is fatal, which is another test.
  await vi.advanceTimersByTimeAsync(50);
  world.setHealthy(false);

  const stored: string[] = [];
  const counters = [0, 0, 0, 0];
  for (let transactions = 5 + chance.upTo(15); transactions > 0; transactions--) {
    const texts = Array.from({ length: 1 + chance.upTo(5) }, () => {
      const key = chance.upTo(3);
      const prefix = key === 3 ? '-' : 'abc'[key]!;
      return `${prefix}${++counters[key]!}${chance.whether(0.05) ? POISON : ''}`;
    });
    await world.add(texts);
    stored.push(...texts);
    await vi.advanceTimersByTimeAsync(chance.upTo(20));
    if (chance.whether(0.1)) world.revoke();
  }
  world.setHealthy(true);
  broker.healthy = true;
  for (let step = 0; (await world.left()).length > 0; step++) {
    if (step > 2_000) throw new Error(`something is never published: ${(await world.left()).join(' ')}`);
    // What the broker refused together is believed to be refused for ever when something else goes through.
    if (step % 50 === 0) {
      const text = `-${++counters[3]!}`;
      await world.add([text]);
      stored.push(text);
    }
    await vi.advanceTimersByTimeAsync(50);
  }
  controller.abort();
  let ended = false;
  const end = Promise.all(relays).then(() => (ended = true));
  for (let step = 0; !ended; step++) {
    if (step > 1_000) throw new Error('a relay does not end');
    await vi.advanceTimersByTimeAsync(10);
  }
  await end;

  const real = stored.filter((text) => !text.endsWith(POISON));
  // At least once, and nothing that was not stored or was refused.
  expect(firsts(broker.acknowledged).sort()).toEqual([...real].sort());
  for (const key of ['a', 'b', 'c']) {
    const ofKey = (text: string) => text.startsWith(key);
    expect(firsts(broker.acknowledged.filter(ofKey))).toEqual(real.filter(ofKey));
  }
  // The relay's own mistakes would be among the store's faults.
  const ours = errorLogger.errors.filter(
    (error) => !(error instanceof MessengerError) && error.message !== 'the store failed',
  );
  expect(ours).toEqual([]);
  vi.useRealTimers();
}

describe.each(['plain', 'feed'] as const)('a %s store', (kind) => {
  test(`keeps its promises in ${RUNS} random runs (seed ${SEED})`, async () => {
    for (let i = 0; i < RUNS; i++) {
      try {
        await run(SEED + i, kind);
      } catch (error) {
        throw new Error(`run with ORDER_SEED=${SEED + i} failed: ${(error as Error).message}`, { cause: error });
      }
    }
  }, 240_000);
});

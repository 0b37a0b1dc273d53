/**
 * What the simulation can see: each mutant breaks one rule of the store's, the publisher's or the
 * engine's own, and some of the same few worlds have to notice. The unbroken ones pass all of them.
 */
import { compileFunction } from 'node:vm';
import { readFile } from 'node:fs/promises';
import ts from 'typescript';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { relayOptions } from '../../src/core/messenger-options.js';
import { runRelay } from '../../src/core/relay.js';
import type { PromiseName } from './oracle.js';
import type { PublisherFlaw } from './publisher.js';
import { simulate, type Report } from './run.js';
import type { Flaw } from './server.js';
import { World, type WorldOptions } from './world.js';

const CORE = '../../src/core/';
/** Always the same ones: a mutant is seen in them, or never. */
const WORLDS = 600;

afterEach(() => {
  vi.doUnmock('x');
  vi.resetModules();
});

function* worlds(Kind: typeof World, options: WorldOptions): Iterable<World> {
  for (let seed = 1; seed <= WORLDS; seed++) yield new Kind(seed, options);
}

function expectSeen({ violations, runs }: Report, promises: readonly PromiseName[]): void {
  const [first] = violations;
  expect(first, `nothing was noticed in ${runs} worlds`).toBeDefined();
  expect(promises).toContain(first!.promise);
}

describe('a store', () => {
  const flaws: Record<Flaw, readonly PromiseName[]> = {
    'unfenced settle': ['bounded duplicates', 'nothing lost', 'order per key', 'at least once'],
    'parked keys read with the claim': ['order per key'],
    'parked keys not read when taking over': ['order per key'],
    'claim without an epoch': ['bounded duplicates', 'nothing lost', 'order per key'],
    'cursor past what is settled': ['nothing lost'],
    'retries out of order': ['order per key'],
    'lost by timer alone': ['nothing sent past the lease'],
    'late deadline': ['nothing sent past the lease'],
    'set aside when settled': ['order per key'],
  };
  test.for(Object.entries(flaws) as [Flaw, readonly PromiseName[]][])(
    'is seen to be broken: %s',
    async ([storeFlaw, promises]) => {
      const engine = { runRelay, relayOptions };
      expectSeen(await simulate(worlds(World, { engine, storeFlaw }), { enough: 1 }), promises);
    },
  );
});

describe('a publisher', () => {
  const flaws: Record<PublisherFlaw, readonly PromiseName[]> = {
    'acknowledges what is sent': ['at least once', 'nothing lost', 'order per key'],
    'ignores failures in a batch': ['at least once', 'nothing lost', 'order per key'],
    'does not keep the order of keys': ['order per key'],
  };
  test.for(Object.entries(flaws) as [PublisherFlaw, readonly PromiseName[]][])(
    'is seen to be broken: %s',
    async ([publisherFlaw, promises]) => {
      const engine = { runRelay, relayOptions };
      expectSeen(await simulate(worlds(World, { engine, publisherFlaw }), { enough: 1 }), promises);
    },
  );
});

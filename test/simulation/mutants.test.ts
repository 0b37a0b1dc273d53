/**
 * What the simulation can see: each mutant breaks one rule of the store's, the publisher's or the
 * engine's own, and some of the same few worlds have to notice. The whole ones pass thousands of them.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { compileFunction } from 'node:vm';
import ts from 'typescript';
import { describe, expect, test, vi } from 'vitest';
import { relaySettings } from '../../src/core/relay/settings.js';
import { runRelay } from '../../src/core/relay/supervisor.js';
import type { Often } from './faults.js';
import type { PromiseName } from './oracle.js';
import type { PublisherFlaw } from './publisher.js';
import * as simulation from './run.js';
import type { Flaw } from './server.js';
import * as worldModule from './world.js';

/** Always the same ones: a mutant is seen in these, or never. */
const WORLDS = 400;
const TIMEOUT = 300_000;

interface Seen {
  readonly by: readonly PromiseName[];
  /** Makes worlds of the kind in which it matters. */
  readonly often?: Often;
}

async function expectSeen(
  { by, often }: Seen,
  options: Omit<worldModule.WorldOptions, 'often'>,
  { World } = worldModule,
  { simulate } = simulation,
): Promise<void> {
  const worlds = (function* () {
    for (let seed = 1; seed <= WORLDS; seed++) yield new World(seed, { ...options, ...(often && { often }) });
  })();
  const { violations, runs } = await simulate(worlds, { enough: 1 });
  expect(violations.length, `nothing was noticed in ${runs} worlds`).toBeGreaterThan(0);
  expect(by).toContain(violations[0]!.promise);
}

const PAUSES: Often = { 'relay: freezes past its lease': 0.01, 'store: call arrives when it was given up': 0.05 };
const MISTAKEN: Often = { 'message: refused for ever, then not': 0.3, 'store: call fails': 0.1 };

const SLOW: Often = { 'broker: request is slow': 0.2, 'broker: answer is slow': 0.2 };

describe('a store', () => {
  const flaws: Record<Flaw, Seen> = {
    'unfenced settle': { by: ['bounded duplicates', 'nothing lost', 'order per key', 'at least once'] },
    'parked keys read with the claim': {
      // What a feed does not know to wait, it does not look for either.
      by: ['order per key', 'no stall'],
      often: { 'broker: message is refused': 0.15, 'broker: outage': 0, 'relay: joins': 1, 'relay: leaves': 1 },
    },
    'parked keys not read when taking over': { by: ['order per key'], often: { 'broker: message is refused': 0.3 } },
    'claim without an epoch': { by: ['bounded duplicates', 'nothing lost', 'order per key'], often: PAUSES },
    'cursor past what is settled': { by: ['nothing lost'] },
    'retries out of order': { by: ['order per key'] },
    'lost by timer alone': { by: ['nothing sent past the lease'], often: PAUSES },
    'late deadline': { by: ['nothing sent past the lease'], often: PAUSES },
  };
  test.for(Object.entries(flaws) as [Flaw, Seen][])(
    'is seen to be broken: %s',
    { timeout: TIMEOUT },
    async ([storeFlaw, seen]) => {
      await expectSeen(seen, { engine: { runRelay, relaySettings }, storeFlaw });
    },
  );
});

describe('a publisher', () => {
  const flaws: Record<PublisherFlaw, Seen> = {
    'acknowledges what is sent': { by: ['at least once', 'nothing lost', 'order per key'] },
    'ignores failures in a batch': { by: ['at least once', 'nothing lost', 'order per key'] },
    'does not keep the order of keys': { by: ['order per key'] },
  };
  test.for(Object.entries(flaws) as [PublisherFlaw, Seen][])(
    'is seen to be broken: %s',
    { timeout: TIMEOUT },
    async ([publisherFlaw, seen]) => {
      await expectSeen(seen, { engine: { runRelay, relaySettings }, publisherFlaw });
    },
  );
});

/** A line of the engine, and what it says instead. */
interface Change extends Seen {
  /** Below `src/core`, without `.ts`. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

describe('the engine', () => {
  const changes: Record<string, Change> = {
    'settles pages as they come': {
      file: 'relay/pipeline',
      from: '      await previous;\n',
      to: '',
      by: ['nothing lost', 'bounded duplicates', 'order per key'],
    },
    'sends a key of which an earlier page is not done': {
      file: 'relay/page-log',
      from: 'isBusy: (key) => isEarlier(isBusy, key),',
      to: 'isBusy: () => false,',
      by: ['order per key'],
    },
    'does not know what an earlier page has parked': {
      file: 'relay/page-log',
      from: '!isSettled && publication.hasParked(key)',
      to: 'isSettled && publication.hasParked(key)',
      by: ['order per key'],
    },
    'goes on with the key of a dead letter at once': {
      file: 'publish/outcomes',
      from: 'if (key !== undefined) this.#blocked.add(key);',
      to: 'if (key !== undefined && more.dead !== true) this.#blocked.add(key);',
      by: ['order per key'],
      often: MISTAKEN,
    },
    'asks for the lease once': {
      file: 'relay/pipeline',
      from: 'get lost() {\n        return feed.lost;\n      },',
      to: 'lost: feed.lost,',
      by: ['nothing sent past the lease'],
      often: { ...PAUSES, 'broker: connection fails': 0.1 },
    },
    'takes what was let go for published when partitions change hands': {
      file: 'relay/pipeline',
      from: 'const toPark = [...outcome.toPark, ...outcome.untried];',
      to: 'const toPark = outcome.toPark;',
      by: ['at least once'],
      often: { 'relay: joins': 1, 'relay: leaves': 0 },
    },
    'keeps what it has let go, and settles it': {
      file: 'relay/pipeline',
      from: '    this.#log.clear();\n',
      to: '',
      by: ['the contract of feeds', 'no stall', 'order per key'],
      often: { 'relay: joins': 1 },
    },
    'does not count a slow call that is waited for': {
      file: 'relay/pipeline',
      from: '      this.#capacity.awaitLate();\n      const work',
      to: '      const work',
      by: ['bounded duplicates', 'order per key'],
      often: SLOW,
    },
    'goes on with the key of a slow call': {
      file: 'publish/outcomes',
      from: 'this.#park(place, { outstanding: true, retryIn });',
      to: 'this.#toPark.push(this.#toParkOf(place, { outstanding: true, retryIn }));',
      by: ['order per key'],
      often: SLOW,
    },
    'takes a slow call for acknowledged whatever its answer is': {
      file: 'publish/page',
      from: 'const taken = outcomes.take(places, [], all, options',
      to: 'const taken = outcomes.take(places, [], all.map(() => ({ acknowledged: true })), options',
      by: ['at least once'],
      often: SLOW,
    },
    'ignores the answer to a slow call': {
      file: 'relay/pipeline',
      from: 'const outcome = await publishLate(each, this.#publishOptions);',
      to: 'await publishLate(each, this.#publishOptions); return;',
      by: ['no stall', 'bounded duplicates'],
      often: SLOW,
    },
    'tries a message again while its call is waited for': {
      file: 'publish/outcomes',
      from: '{ outstanding: true, retryIn }',
      to: '{ outstanding: false, retryIn: 0 }',
      by: ['bounded duplicates', 'the contract of feeds'],
      often: SLOW,
    },
    'gives partitions away while pages are in flight': {
      file: 'relay/pipeline',
      from: 'while (!this.isIdle) await',
      to: 'if (false) await',
      by: ['bounded duplicates', 'nothing lost', 'order per key', 'no errors of its own'],
    },
    'publishes as many pages as there are': {
      file: 'relay/capacity',
      from: 'this.#inFlight + pageSize <= depth * pageSize',
      to: 'this.#inFlight < Infinity',
      by: ['bounded duplicates'],
    },
    'does not count what is in a page': {
      file: 'relay/pipeline',
      from: 'this.#capacity.free(this.#options.pageSize - length);',
      to: 'this.#capacity.free(this.#options.pageSize);',
      by: ['bounded duplicates'],
    },
    'reads the clock once more for how long it waits for a broker': {
      file: 'publish/circuit-breaker',
      from: 'this.#nextProbeAt : retryAt) - now, signals);',
      to: 'this.#nextProbeAt : retryAt) - this.#clock.now(), signals);',
      by: ['no stall'],
      often: { 'broker: connection fails': 0.3 },
    },
    'burns attempts in an outage': {
      file: 'publish/outcomes',
      from: 'else if (outage !== undefined && !isEnough && ',
      to: 'else if (outage === null && ',
      by: ['no attempt burnt', 'a dead letter has a reason'],
    },
  };

  test.for(Object.entries(changes))('is seen to be broken: it %s', { timeout: TIMEOUT }, async ([, change]) => {
    const module = `../../src/core/${change.file}.js`;
    vi.resetModules();
    vi.doMock(module, () => changed(change));
    try {
      // All anew: errors and the like are known by their classes.
      const { runRelay: run } = await import('../../src/core/relay/supervisor.js');
      const { relaySettings: settings } = await import('../../src/core/relay/settings.js');
      const engine = { runRelay: run, relaySettings: settings };
      await expectSeen(change, { engine }, await import('./world.js'), await import('./run.js'));
    } finally {
      vi.doUnmock(module);
      vi.resetModules();
    }
  });
});

/** A module of core, with the change in it: there has to be exactly one place for it. */
async function changed({ file, from, to }: Change): Promise<object> {
  const source = await readFile(new URL(`../../src/core/${file}.ts`, import.meta.url), 'utf8');
  const parts = source.split(from);
  if (parts.length !== 2) throw new Error(`${file}.ts does not say ${JSON.stringify(from)} once: mutate it otherwise`);
  const { outputText } = ts.transpileModule(parts.join(to), {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  });
  const imported = new Map<string, unknown>();
  for (const [, name] of outputText.matchAll(/require\("(\.[^"]+)\.js"\)/g)) {
    imported.set(
      `${name!}.js`,
      await import(path.posix.join('../../src/core', path.posix.dirname(file), `${name!}.ts`)),
    );
  }
  const exports: object = {};
  const run = compileFunction(outputText, ['exports', 'require']) as (...args: unknown[]) => void;
  run(exports, (name: string) => imported.get(name));
  return exports;
}

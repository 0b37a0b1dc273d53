/**
 * The relay engine, as it is, on virtual time: worlds of a store, brokers, writers and relays in which
 * everything goes wrong that their contracts allow, and every promise is asked of all that happens.
 *
 * A world is repeated, with a line for everything that happens in it, by
 * `SIMULATION_SEED=<its seed> npx vitest run test/simulation/simulation.test.ts`; where it says
 * "crash at point 17" (or freeze …) add `SIMULATION_BLOW=crash:17`. `SIMULATION_RUNS` sets how many run otherwise.
 */
import { describe, expect, test } from 'vitest';
import { relaySettings } from '../../src/core/relay/settings.js';
import { runRelay } from '../../src/core/relay/supervisor.js';
import type { Blow } from './clock.js';
import { FAULTS } from './faults.js';
import { askedOfSystem } from './guard.js';
import { simulate, summary, type Report } from './run.js';
import { World, type WorldOptions } from './world.js';

const engine = { runRelay, relaySettings };
const { SIMULATION_SEED, SIMULATION_BLOW, SIMULATION_RUNS } = process.env;
const SEED = Number(SIMULATION_SEED ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(SIMULATION_RUNS ?? 2_800);
/** Worlds in which a blow falls at each point of a relay in turn. */
const SWEEPS = 2;
const TIMEOUT = 600_000;

/** What can fall on a relay at each of its points: one that freezes wakes up when its lease of 300 ms is over. */
const BLOWS = {
  crash: { kind: 'crash' },
  freeze: { kind: 'freeze', ms: 450, suspended: false },
  suspend: { kind: 'freeze', ms: 450, suspended: true },
} satisfies Record<string, Blow>;

function* worlds(first: number, count: number, options: Partial<WorldOptions> = {}): Iterable<World> {
  for (let seed = first; seed < first + count; seed++) yield new World(seed, { engine, ...options });
}

function expectKept({ violations }: Report): void {
  const told = violations.map(
    ({ seed, kind, promise, what }) => `seed ${seed}${kind && `, ${kind}`}: ${promise}: ${what}`,
  );
  expect(told).toEqual([]);
}

if (SIMULATION_SEED === undefined)
  describe(`the relay engine in worlds from seed ${SEED} on`, () => {
    test(
      'keeps every promise whatever goes wrong',
      async () => {
        let report: Report | undefined;
        const asked = await askedOfSystem(async () => {
          report = await simulate(worlds(SEED, RUNS));
        });
        console.log(summary(report!));
        expectKept(report!);
        expect(asked).toEqual([]);
        const never = Object.keys(FAULTS).filter((name) => !report!.faults.has(name as keyof typeof FAULTS));
        expect(never).toEqual([]);
      },
      TIMEOUT,
    );

    test.for(Object.keys(BLOWS) as (keyof typeof BLOWS)[])(
      'keeps every promise with a %s at every await of a relay',
      { timeout: TIMEOUT },
      async (name) => {
        const blow = BLOWS[name];
        for (let seed = SEED; seed < SEED + SWEEPS; seed++) {
          const [calm] = worlds(seed, 1, { quiet: true });
          await simulate([calm!]);
          const points = calm!.firstRelay!.points;
          const swept = await simulate(
            (function* () {
              for (let point = 1; point <= points; point++) {
                yield* worlds(seed, 1, { quiet: true, blow: { point, blow } });
              }
            })(),
          );
          console.log(`${name} at each of ${points} points: ${summary(swept)}`);
          expectKept(swept);
        }
      },
    );

    test('does exactly the same again with the same seed', async () => {
      const first = await simulate(worlds(SEED, 20));
      const again = await simulate(worlds(SEED, 20));
      expect(summary(again)).toBe(summary(first));
    });
  });

if (SIMULATION_SEED !== undefined)
  test(
    `the world of seed ${SIMULATION_SEED} keeps every promise`,
    async () => {
      const [name, point] = SIMULATION_BLOW?.split(':') ?? [];
      const note = (line: string) => {
        console.log(line);
      };
      const blow = name === undefined ? undefined : { point: Number(point), blow: BLOWS[name as keyof typeof BLOWS] };
      expectKept(await simulate(worlds(SEED, 1, { note, ...(blow && { quiet: true, blow }) })));
    },
    TIMEOUT,
  );

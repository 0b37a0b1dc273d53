/** Runs worlds, many at a time, and adds up what happened in them. */
import type { FaultName } from './faults.js';
import type { Violation } from './oracle.js';
import type { World } from './world.js';

/** What happened in all of them. */
export interface Report {
  runs: number;
  steps: number;
  /** Virtual milliseconds. */
  time: number;
  accepted: number;
  duplicates: number;
  /** The most messages that a crash would have repeated, as a part of page size times depth. */
  fullest: number;
  /** The longest that a message waited which nothing was wrong with, in a calm world. */
  slowest: number;
  readonly states: Set<string>;
  readonly faults: Map<FaultName, number>;
  readonly violations: (Violation & { readonly seed: number; readonly kind: string })[];
}

/** Worlds that take turns: everything that follows from a step is done after one turn of the event loop, for all of them. */
const AT_ONCE = 64;

/** No world takes anything like as many. */
const MAX_STEPS = 200_000;

/** Runs every world to its end, or until `enough` of them broke a promise. */
export async function simulate(worlds: Iterable<World>, { enough = Infinity } = {}): Promise<Report> {
  const report: Report = {
    ...{ runs: 0, steps: 0, time: 0, accepted: 0, duplicates: 0, fullest: 0, slowest: 0 },
    ...{ states: new Set(), faults: new Map(), violations: [] },
  };
  const waiting = worlds[Symbol.iterator]();
  const running = new Set<World>();
  // What is thrown in these worlds is thrown by the thousand, and nobody reads where.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    for (;;) {
      while (running.size < AT_ONCE && report.violations.length < enough) {
        const { value, done } = waiting.next() as IteratorResult<World, undefined>;
        if (done === true) break;
        running.add(value);
      }
      if (running.size === 0 || report.violations.length >= enough) return report;
      for (const world of running) {
        world.step();
        if (world.timeline.steps > MAX_STEPS) world.fail('no stall', `${MAX_STEPS} steps, and no end`);
        if (!world.isOver) continue;
        running.delete(world);
        add(report, world);
      }
      await new Promise(setImmediate);
    }
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function add(report: Report, world: World): void {
  const { oracle, timeline, faults, states, violation } = world;
  report.runs += 1;
  report.steps += timeline.steps;
  report.time += timeline.now;
  report.accepted += oracle.acceptances;
  report.duplicates += oracle.duplicates;
  report.fullest = Math.max(report.fullest, oracle.fullest);
  report.slowest = Math.max(report.slowest, oracle.slowest);
  for (const state of states) report.states.add(state);
  for (const [name, count] of faults.counts) report.faults.set(name, (report.faults.get(name) ?? 0) + count);
  if (violation) report.violations.push({ seed: world.seed, kind: world.kind, ...violation });
}

/** One line of it. */
export function summary(report: Report): string {
  const { runs, steps, time, states, accepted, duplicates, fullest, slowest, faults } = report;
  const counts = [...faults].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, count]) => `${name} ${count}`);
  return (
    `${runs} worlds, ${steps} steps, ${Math.round(time / 1_000)} virtual seconds, ${states.size} states; ` +
    `${accepted} acknowledgements, ${duplicates} of them again, at most ${fullest.toFixed(2)} of a relay's bound in flight; ` +
    `${Math.round(slowest)} ms the slowest beside what was broken; faults: ${counts.join(', ')}`
  );
}

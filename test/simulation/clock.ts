/** Virtual time: what happens in a world, in order, and the processes that it happens to. */
import type { Clock } from '../../src/core/util/clock.js';
import type { Chance } from './chance.js';

interface Entry {
  readonly time: number;
  readonly order: number;
  readonly run: () => void;
}

const isBefore = (a: Entry, b: Entry): boolean => a.time < b.time || (a.time === b.time && a.order < b.order);

/** The time of one world: a queue (a binary heap) of what is to happen. */
export class Timeline {
  now = 0;
  steps = 0;
  readonly #heap: Entry[] = [];
  #order = 0;

  after(ms: number, run: () => void): void {
    const heap = this.#heap;
    const entry = { time: this.now + ms, order: this.#order++, run };
    let place = heap.length;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (isBefore(heap[parent]!, entry)) break;
      heap[place] = heap[parent]!;
      place = parent;
    }
    heap[place] = entry;
  }

  /** Lets the next thing happen. What follows from it at once, in microtasks, is for the caller to let happen. */
  step(): void {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) throw new Error('nothing is left to happen');
    if (heap.length > 0) {
      let place = 0;
      for (;;) {
        let child = 2 * place + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
        if (isBefore(last, heap[child]!)) break;
        heap[place] = heap[child]!;
        place = child;
      }
      heap[place] = last;
    }
    this.now = first.time;
    this.steps += 1;
    first.run();
  }
}

/** What may hit a process at any of its points. Milliseconds. */
export type Blow =
  | { readonly kind: 'crash' }
  /** It stands still; with `suspended`, so does its clock. */
  | { readonly kind: 'freeze'; readonly ms: number; readonly suspended: boolean }
  /** Its clock goes on by that much at once. */
  | { readonly kind: 'jump'; readonly ms: number };

/** Whether a blow falls at the point of this number, counted from 1. */
export type Fate = (point: number) => Blow | undefined;

type Source = 'timer' | 'network';

interface Given {
  readonly source: Source;
  readonly run: () => void;
}

/** At most so long does it take to ask for the time. Milliseconds. */
export const READING = 0.01;

/** By at most so much Node runs a timer before `performance.now()` says that it is due. Milliseconds. */
const EARLY = 1;

interface Timer {
  due: number;
  readonly callback: () => void;
}

/**
 * One operating-system process: its own clock, and callbacks that reach it while it runs. A point is
 * each callback that it gets and each request that it makes: between those nothing can be told apart
 * from the outside, so that a crash at each of them is a crash at every await.
 */
export class Process {
  readonly name: string;
  readonly clock: Clock;
  crashed = false;
  points = 0;
  readonly #timeline: Timeline;
  readonly #chance: Chance;
  readonly #fate: Fate;
  readonly #timers = new Set<Timer>();
  #offset: number;
  #thawsAt: number | undefined;
  #backlog: Given[] = [];

  constructor(name: string, timeline: Timeline, chance: Chance, fate: Fate) {
    this.name = name;
    this.#timeline = timeline;
    this.#chance = chance;
    this.#fate = fate;
    this.#offset = chance.between(0, 1_000_000) - timeline.now;
    // Between one line that asks for the time and the next it has gone on.
    const now = () => timeline.now + (this.#offset += chance.random() * READING);
    this.clock = {
      now,
      random: chance.random,
      setTimeout: (callback, ms) => {
        // As Node has it: at least one millisecond.
        const timer = { due: now() + Math.max(1, ms), callback };
        this.#timers.add(timer);
        this.#arm(timer);
        return () => {
          this.#timers.delete(timer);
        };
      },
    };
  }

  get frozen(): boolean {
    return this.#thawsAt !== undefined;
  }

  /** Gives it a callback: now, when it thaws, or never. */
  give(source: Source, run: () => void): void {
    if (this.crashed) return;
    if (!this.frozen) this.#point();
    // A blow may have fallen just now.
    if (this.hasCrashed()) return;
    if (this.frozen) this.#backlog.push({ source, run });
    else run();
  }

  /** It makes a request: returns after how many milliseconds it leaves the process, if it does at all. */
  request(): number | undefined {
    if (this.crashed) return undefined;
    if (!this.frozen) this.#point();
    if (this.hasCrashed()) return undefined;
    // It froze while it was writing: the request was out already, or is so when it goes on.
    return this.#thawsAt !== undefined && this.#chance.whether(0.5) ? this.#thawsAt - this.#timeline.now : 0;
  }

  crash(): void {
    this.crashed = true;
    this.#timers.clear();
    this.#backlog = [];
  }

  /** Asked anew: the type checker believes a field to stay as it was when last looked at. */
  hasCrashed(): boolean {
    return this.crashed;
  }

  #point(): void {
    this.points += 1;
    const blow = this.#fate(this.points);
    if (blow?.kind === 'crash') this.crash();
    if (blow?.kind === 'jump') this.#jump(blow.ms);
    if (blow?.kind === 'freeze') this.#freeze(blow.ms, blow.suspended);
  }

  #freeze(ms: number, suspended: boolean): void {
    this.#thawsAt = this.#timeline.now + ms;
    this.#timeline.after(ms, () => {
      this.#thawsAt = undefined;
      if (suspended) this.#jump(-ms);
      // Which of them an event loop looks at first is its own affair.
      const first = this.#chance.pick<Source>(['timer', 'network']);
      const backlog = this.#backlog;
      this.#backlog = [];
      const inOrder = [
        ...backlog.filter(({ source }) => source === first),
        ...backlog.filter(({ source }) => source !== first),
      ];
      for (const { source, run } of inOrder) {
        this.#timeline.after(0, () => {
          this.give(source, run);
        });
      }
    });
  }

  #jump(ms: number): void {
    this.#offset += ms;
    for (const timer of this.#timers) this.#arm(timer);
  }

  #arm(timer: Timer): void {
    const left = timer.due - this.clock.now();
    this.#timeline.after(Math.max(0, left - this.#chance.random() * EARLY), () => {
      if (!this.#isDue(timer)) return;
      this.give('timer', () => {
        if (!this.#isDue(timer)) return;
        this.#timers.delete(timer);
        timer.callback();
      });
    });
  }

  /** Not when it was cancelled, has run, or was armed anew for later since the clock stood still. */
  #isDue(timer: Timer): boolean {
    return this.#timers.has(timer) && this.clock.now() > timer.due - EARLY - 1e-6;
  }
}

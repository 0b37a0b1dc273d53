import type { Chance } from './chance.js';

/** Everything that goes wrong in these worlds, and how probable it is where it may happen. */
export const FAULTS = {
  'slow network': 0.05,
  'store: call fails': 0.02,
  'store: call is lost': 0.01,
  'store: call arrives when it was given up': 0.01,
  'store: answer is an error': 0.02,
  'store: answer is lost': 0.01,
  'store: outage': 0.5,
  'store: clock jumps': 0.3,
  'store: lease is revoked': 0.5,
  'broker: message is refused': 0.1,
  'broker: request is refused': 0.04,
  'broker: connection fails': 0.04,
  'broker: request is lost': 0.02,
  'broker: request arrives when it was given up': 0.02,
  'broker: answer is lost': 0.03,
  'broker: request is slow': 0.04,
  'broker: answer is slow': 0.04,
  'broker: answer is a failed connection': 0.03,
  'broker: answer is one result short': 0.02,
  'broker: outage': 0.5,
  'broker: never heals': 0.1,
  'message: refused for ever': 0.04,
  'message: fails for ever': 0.03,
  'message: refused for ever, then not': 0.03,
  'relay: crash': 0.002,
  'relay: freezes': 0.002,
  'relay: freezes past its lease': 0.002,
  'relay: is suspended past its lease': 0.001,
  'relay: clock jumps': 0.001,
  'relay: joins': 0.5,
  'relay: leaves': 0.5,
  'wake-up is lost': 0.3,
} satisfies Record<string, number>;

export type FaultName = keyof typeof FAULTS;

/** Faults that are possible whatever the seed says, and how probable. */
export type Often = Partial<Record<FaultName, number>>;

/** Gets a line for everything that happens, to find out what led to a violation. */
export type Note = (line: string) => void;

/** The faults of one world: those that are possible there, and how often each happened. */
export class Faults {
  readonly counts = new Map<FaultName, number>();
  /** From when on nothing goes wrong any more. */
  over = false;
  readonly #chance: Chance;
  readonly #possible: ReadonlySet<FaultName>;
  readonly #often: Often;
  readonly #note: Note | undefined;

  constructor(chance: Chance, possible: ReadonlySet<FaultName>, often: Often = {}, note?: Note) {
    this.#often = often;
    this.#note = note;
    this.#chance = chance;
    this.#possible = possible;
  }

  /** Whether the fault happens here and now. */
  hits(name: FaultName): boolean {
    const often = this.#often[name];
    if (this.over || (often === undefined && !this.#possible.has(name))) return false;
    if (!this.#chance.whether(often ?? FAULTS[name])) return false;
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#note?.(`FAULT ${name}`);
    return true;
  }
}

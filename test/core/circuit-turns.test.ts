/** Who is let through an open circuit first, and what its listener is told. */
import { describe, expect, test } from 'vitest';
import { Calls } from '../../src/core/publish/calls.js';
import { Circuit, type CircuitListener, type Pass } from '../../src/core/publish/circuit-breaker.js';
import type { Clock } from '../../src/core/util/clock.js';

const tick = () => new Promise((resolve) => setImmediate(resolve));

const PATIENT = true;
const IMPATIENT = false;
const down = { error: new Error('down'), signature: 'down', certain: true };

/** A circuit on a clock that stands until it is told the time. */
function circuit() {
  let now = 0;
  const timers = new Set<{ readonly due: number; readonly callback: () => void }>();
  const waits: number[] = [];
  const told: string[] = [];
  const clock: Clock = {
    now: () => now,
    setTimeout(callback, ms) {
      waits.push(ms);
      const timer = { due: now + ms, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    random: () => 1,
  };
  const listener: CircuitListener = {
    paused: (reason) => void told.push(`paused ${reason}`),
    resumed: (reason, pausedFor) => void told.push(`resumed ${reason} after ${String(pausedFor)}`),
  };
  const self = new Circuit({ clock, backoff: { minDelay: 100, maxDelay: 100 }, listener });
  return {
    self,
    clock,
    waits,
    told,
    /** Opens the circuit until 100 ms from now. */
    open: (outage = down) => {
      self.leave(self.tryEnter(IMPATIENT)!, { acknowledged: false, outage });
    },
    at: async (time: number) => {
      now = time;
      for (const timer of [...timers]) if (timer.due <= now && timers.delete(timer)) timer.callback();
      await tick();
    },
  };
}

describe('an open circuit', () => {
  test('lets new messages through before parked messages that waited longer', async () => {
    const { self, open, at, waits } = circuit();
    open();
    const entered: string[] = [];
    const over = new AbortController();
    const enter = async (who: string, patient: boolean): Promise<Pass | undefined> => {
      const pass = await self.enter(patient, over.signal);
      entered.push(who);
      return pass;
    };
    const parked = enter('parked', PATIENT);
    const fresh = enter('new', IMPATIENT);
    await at(100);
    expect(entered).toEqual(['new']);
    self.leave((await fresh)!);
    await tick();
    expect(entered).toEqual(['new', 'parked']);
    self.leave((await parked)!, { acknowledged: true });
    expect(self.status.state).toBe('closed');
    // Nobody asked again and again while another's turn was due.
    expect(waits.every((ms) => ms > 0)).toBe(true);
  });

  test('lets parked messages through after the new message ahead of them gives up', async () => {
    const { self, open, at } = circuit();
    open();
    const over = new AbortController();
    const fresh = self.enter(IMPATIENT, over.signal);
    const parked = self.enter(PATIENT);
    over.abort();
    expect(await fresh).toBeUndefined();
    await at(100);
    expect(await parked).toEqual({ probe: true, opened: 1 });
  });

  test('lets parked messages through while no new message waits', async () => {
    const { self, open, at } = circuit();
    open();
    await at(100);
    expect(self.tryEnter(PATIENT)).toEqual({ probe: true, opened: 1 });
  });

  test('sends no second probe while the first probe to an answering broker is in flight', async () => {
    const { self, open, at } = circuit();
    open();
    await at(100);
    expect(self.tryEnter(IMPATIENT)?.probe).toBe(true);
    await at(10_000);
    expect(self.tryEnter(IMPATIENT)).toBeUndefined();
  });

  test('sends a second probe to a silent broker only after another pause', async () => {
    const { self, clock, open, at } = circuit();
    const calls = new Calls(clock);
    open({ ...down, error: calls.tooLate(calls.begin(), 50) });
    await at(100);
    expect(self.tryEnter(IMPATIENT)?.probe).toBe(true);
    await at(199);
    expect(self.tryEnter(IMPATIENT)).toBeUndefined();
    await at(200);
    expect(self.tryEnter(IMPATIENT)?.probe).toBe(true);
  });

  test('is closed once, by the first of two probes that a silent broker answers', async () => {
    const { self, clock, open, at, told } = circuit();
    const calls = new Calls(clock);
    open({ ...down, error: calls.tooLate(calls.begin(), 50) });
    await at(100);
    const first = self.tryEnter(IMPATIENT)!;
    await at(200);
    const second = self.tryEnter(IMPATIENT)!;
    self.leave(second, { acknowledged: true });
    self.leave(first, { acknowledged: true });
    expect(told).toEqual(['paused broker', 'resumed broker after 200']);
    expect(self.status.state).toBe('closed');
  });

  test('wakes waiting requests as soon as a probe is answered', async () => {
    const { self, open, at } = circuit();
    open();
    await at(100);
    const probe = self.tryEnter(IMPATIENT)!;
    const entering = self.enter(IMPATIENT);
    self.leave(probe, { acknowledged: true });
    expect(await entering).toEqual({ probe: false, opened: 1 });
  });
});

describe('the listener of a circuit', () => {
  test('is told how long the broker was down', async () => {
    const { self, open, at, told } = circuit();
    await at(1_000);
    open();
    await at(1_300);
    self.leave(self.tryEnter(IMPATIENT)!, { acknowledged: true });
    expect(told).toEqual(['paused broker', 'resumed broker after 300']);
  });

  test('is told how long waiting messages held up new ones', async () => {
    const { self, at, told } = circuit();
    await at(1_000);
    self.hold(new Error('full'));
    await at(1_250);
    self.release();
    expect(told).toEqual(['paused limit', 'resumed limit after 250']);
  });

  test('is told nothing if no messages were held up', () => {
    const { self, told } = circuit();
    self.release();
    expect(told).toEqual([]);
  });
});

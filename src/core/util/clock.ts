/**
 * Provides time and random numbers. All code in core that waits, measures time or needs a random number uses a `Clock`,
 * so that a simulation can run core with virtual time and a seed. The default is always `systemClock`.
 */
export interface Clock {
  /**
   * Returns the milliseconds since an arbitrary moment. The value never decreases. Use it for durations, not for dates.
   */
  now(): number;
  /** Calls `callback` once, after `ms` milliseconds. Returns a function that cancels the call. */
  setTimeout(callback: () => void, ms: number): () => void;
  /** Returns a random number that is at least 0 and less than 1. */
  random(): number;
}

/** The monotonic clock of this process. It is not affected by changes to the wall clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout(callback, ms) {
    const timer = setTimeout(callback, ms);
    return () => {
      clearTimeout(timer);
    };
  },
  random: () => Math.random(),
};

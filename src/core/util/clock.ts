/**
 * Time and random numbers. All code in core that waits, measures time or needs a random number uses a `Clock`. So a
 * simulation can run core with its own time and its own seed. The default is always `systemClock`.
 */
export interface Clock {
  /** Milliseconds since some moment. The number never decreases. It is for durations, not for dates. */
  now(): number;
  /** Calls back once, after `ms` milliseconds, unless the function that it returns is called before that. */
  setTimeout(callback: () => void, ms: number): () => void;
  /** A random number of at least 0 and less than 1. */
  random(): number;
}

/** The monotonic clock of this process. It does not change if somebody sets the wall clock. */
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

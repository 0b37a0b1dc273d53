/**
 * Time and chance, as everything in core that waits, measures or draws sees them: so that a simulation
 * can run it on a clock and a seed of its own. The system's is the default everywhere.
 */
export interface Clock {
  /** Milliseconds since some moment, never going back: for durations, not for dates. */
  now(): number;
  /** Calls back once, after so many milliseconds, unless the function that it returns is called first. */
  setTimeout(callback: () => void, ms: number): () => void;
  /** A number from 0 up to, and not including, 1. */
  random(): number;
}

/** This process's monotonic clock: setting the wall clock changes nothing about it. */
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

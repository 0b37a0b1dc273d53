import { hasCode, toError } from './errors.js';
import type { RelayOptions } from './relay-options.js';
import { isCleanReport } from './store.js';
import { isAborted, sleepBy } from './wait.js';

/** The longest pause between two cleanings. Milliseconds. */
const MAX_PAUSE = 60_000;

/**
 * Cleans again and again, beside the publishing, while this relay holds something, until the signal aborts.
 *
 * @throws MessengerError `INVALID_OPTION` when the store can not clean by this `cleanUp`, and nothing else.
 */
export async function cleanBeside(options: RelayOptions, isHolding: () => boolean, stop: AbortSignal): Promise<void> {
  const { store, cleanUp, interval, destination, clock, errorLogger, onEvent } = options;
  if (cleanUp === undefined) return;
  // Cleaning costs some look-ups even when there is nothing to do, and a message may stay a little longer.
  const pause = Math.max(interval, Math.min(MAX_PAUSE, cleanUp / 10));
  while (!stop.aborted) {
    if (isHolding()) {
      const begun = clock.now();
      try {
        const report = await store.deletePublishedByExpiration(cleanUp, { signal: stop });
        const duration = clock.now() - begun;
        onEvent?.({ type: 'cleaned', destination, duration, ...(isCleanReport(report) && { report }) });
      } catch (error) {
        // A `cleanUp` that the store can not do is a mistake to be told at once, not every minute.
        if (hasCode(error, 'INVALID_OPTION')) throw error;
        if (!isAborted(stop)) errorLogger.error(toError(error));
      }
    }
    await sleepBy(clock, pause, stop);
  }
}

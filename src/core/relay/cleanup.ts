import { hasCode, MessengerError, toError } from '../errors.js';
import type { CleanUp, RelayOptions, RelaySettings } from './settings.js';
import { isCleaningError, isCleanReport, type CleanReport, type Store } from '../contracts/store.js';
import { isAborted, sleepBy } from '../util/async.js';
import { DAY } from '../util/options.js';

/** The longest pause between two cleanings. Milliseconds. */
const MAX_PAUSE = 60_000;

/** For how long a published message is kept where nobody says: seven days, in milliseconds. */
const WEEK = 7 * DAY;

/** Asked each time: `migrate` changes what a store allows while a relay runs. */
async function expirationOf(store: Store, cleanUp: CleanUp, signal: AbortSignal | undefined): Promise<number> {
  if (cleanUp !== 'by retention') return cleanUp;
  return Math.min(WEEK, (await store.retention?.({ signal })) ?? WEEK);
}

/**
 * Cleans once, and tells of it; somebody should know where messages are given up unpublished.
 *
 * @returns the expiration by which it cleaned, in milliseconds.
 * @throws what the store throws.
 */
export async function cleanOnce(
  { store, destination, clock, errorLogger, onEvent }: RelaySettings,
  cleanUp: CleanUp,
  signal: AbortSignal | undefined,
): Promise<number> {
  const begun = clock.now();
  const tell = (report: unknown, failure?: { readonly error: Error }) => {
    const duration = clock.now() - begun;
    onEvent?.({ type: 'cleaned', destination, duration, ...(isCleanReport(report) && { report }), ...failure });
    const { forgotten = [] } = isCleanReport(report) ? report : {};
    for (const name of forgotten) {
      errorLogger.error(
        new MessengerError(
          'DESTINATION_FORGOTTEN',
          `no relay has worked on destination ${JSON.stringify(name)} for longer than its forgetAfter: cleaning no longer waits for it, and what it has not published goes`,
        ),
      );
    }
  };
  try {
    const expiration = await expirationOf(store, cleanUp, signal);
    tell(await store.deletePublishedByExpiration(expiration, { signal }));
    return expiration;
  } catch (error) {
    // What was done is done, and told by nobody later. One that was stopped before it did anything is nothing to tell of.
    if (isCleaningError(error) && (signal?.aborted !== true || hasDone(error.report))) tell(error.report, { error });
    throw error;
  }
}

function hasDone({ emptied, forgotten = [] }: CleanReport): boolean {
  return emptied > 0 || forgotten.length > 0;
}

/**
 * Cleans again and again, beside the publishing, while this relay holds something, until the signal aborts.
 *
 * @throws MessengerError `INVALID_OPTION` when the store cannot clean by this `cleanUp`, and nothing else.
 */
export async function cleanBeside(options: RelayOptions, isHolding: () => boolean, stop: AbortSignal): Promise<void> {
  const { cleanUp, interval, clock, alike } = options;
  if (cleanUp === undefined) return;
  // Cleaning costs some look-ups even when there is nothing to do, and a message may stay a little longer.
  const pauseFor = (expiration: number) => Math.max(interval, Math.min(MAX_PAUSE, expiration / 10));
  let pause = pauseFor(cleanUp === 'by retention' ? WEEK : cleanUp);
  while (!stop.aborted) {
    if (isHolding()) {
      try {
        pause = pauseFor(await cleanOnce(options, cleanUp, stop));
      } catch (error) {
        // A `cleanUp` that the store cannot do is a mistake to be told at once, not every minute. Where the store says by how
        // much it can clean, it may have been changed in between.
        if (cleanUp !== 'by retention' && hasCode(error, 'INVALID_OPTION')) throw error;
        if (!isAborted(stop)) alike.tellError(toError(error));
      }
    }
    await sleepBy(clock, pause, stop);
  }
}

import { hasCode, MessengerError, toError } from '../errors.js';
import type { CleanUp, RelayOptions, RelaySettings } from './settings.js';
import { isCleaningError, isCleanReport, type CleanReport, type Store } from '../contracts/store.js';
import { isAborted, sleepBy } from '../util/async.js';
import { DAY } from '../util/options.js';

/** The longest pause between two cleanings. Milliseconds. */
const MAX_PAUSE = 60_000;

/** How long a published message is kept if nobody says otherwise: seven days, in milliseconds. */
const WEEK = 7 * DAY;

/**
 * How old a published message must be to be cleaned. The store is asked each time, because `migrate` changes what it
 * allows while a relay runs.
 */
async function expirationOf(store: Store, cleanUp: CleanUp, signal: AbortSignal | undefined): Promise<number> {
  if (cleanUp !== 'by retention') return cleanUp;
  return Math.min(WEEK, (await store.retention?.({ signal })) ?? WEEK);
}

/**
 * Cleans once, and reports it. Forgotten destinations are logged as errors, because somebody should know that their
 * unpublished messages are given up.
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
          `no relay has worked on destination ${JSON.stringify(name)} for longer than its forgetAfter: cleaning no longer waits for this destination, and deletes messages that the destination has not published`,
        ),
      );
    }
  };
  try {
    const expiration = await expirationOf(store, cleanUp, signal);
    tell(await store.deletePublishedByExpiration(expiration, { signal }));
    return expiration;
  } catch (error) {
    // Report what was done, because nobody reports it later. A cleaning that was stopped before it did anything needs
    // no report.
    if (isCleaningError(error) && (signal?.aborted !== true || hasDone(error.report))) tell(error.report, { error });
    throw error;
  }
}

function hasDone({ emptied, forgotten = [] }: CleanReport): boolean {
  return emptied > 0 || forgotten.length > 0;
}

/**
 * Cleans again and again, beside the publishing, until the signal aborts. Cleans only while this relay holds
 * partitions.
 *
 * @throws MessengerError `INVALID_OPTION` if the store cannot clean by this `cleanUp`, and nothing else.
 */
export async function cleanBeside(options: RelayOptions, isHolding: () => boolean, stop: AbortSignal): Promise<void> {
  const { cleanUp, interval, clock, alike } = options;
  if (cleanUp === undefined) return;
  // Cleaning costs some look-ups even when there is nothing to clean, and a message may stay a little longer.
  const pauseFor = (expiration: number) => Math.max(interval, Math.min(MAX_PAUSE, expiration / 10));
  let pause = pauseFor(cleanUp === 'by retention' ? WEEK : cleanUp);
  while (!stop.aborted) {
    if (isHolding()) {
      try {
        pause = pauseFor(await cleanOnce(options, cleanUp, stop));
      } catch (error) {
        // If the store cannot clean by the given `cleanUp`, that is a mistake in the options. Throw it at once, and do not log
        // it every minute. The retention of the store may have changed since the relay asked for it.
        if (cleanUp !== 'by retention' && hasCode(error, 'INVALID_OPTION')) throw error;
        if (!isAborted(stop)) alike.tellError(toError(error));
      }
    }
    await sleepBy(clock, pause, stop);
  }
}

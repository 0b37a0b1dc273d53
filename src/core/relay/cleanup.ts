import { hasCode, MessengerError, toError } from '../errors.js';
import type { CleanUp, RelayOptions, RelaySettings } from './settings.js';
import { isCleaningError, isCleanReport, type CleanReport, type Store } from '../contracts/store.js';
import { isAborted, sleepBy } from '../util/async.js';
import { DAY } from '../util/options.js';

/** The longest pause between two cleanings. Milliseconds. */
const MAX_PAUSE = 60_000;

/** How long a published message is kept by default: seven days, in milliseconds. */
const WEEK = 7 * DAY;

/**
 * Returns how old a published message must be to be cleaned. It asks the store each time, because `migrate` can change
 * the store's retention while a relay is running.
 */
async function expirationOf(store: Store, cleanUp: CleanUp, signal: AbortSignal | undefined): Promise<number> {
  if (cleanUp !== 'by retention') return cleanUp;
  return Math.min(WEEK, (await store.retention?.({ signal })) ?? WEEK);
}

/**
 * Cleans once, and reports the cleaning. Logs forgotten destinations as errors, because their unpublished messages will
 * be deleted.
 *
 * @returns the expiration used for the cleaning, in milliseconds.
 * @throws the store's own errors.
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
    // Report what was cleaned, because no later cleaning reports it. A cleaning that was stopped before it cleaned
    // anything needs no report.
    if (isCleaningError(error) && (signal?.aborted !== true || hasDone(error.report))) tell(error.report, { error });
    throw error;
  }
}

function hasDone({ emptied, forgotten = [] }: CleanReport): boolean {
  return emptied > 0 || forgotten.length > 0;
}

/**
 * Cleans repeatedly while the relay publishes, until the signal aborts. Cleans only while this relay holds partitions.
 *
 * @throws only MessengerError `INVALID_OPTION`, if the store does not support this `cleanUp`.
 */
export async function cleanBeside(options: RelayOptions, isHolding: () => boolean, stop: AbortSignal): Promise<void> {
  const { cleanUp, interval, clock, alike } = options;
  if (cleanUp === undefined) return;
  // Even if there is nothing to clean, cleaning costs some queries. It does no harm if a message stays a little longer.
  const pauseFor = (expiration: number) => Math.max(interval, Math.min(MAX_PAUSE, expiration / 10));
  let pause = pauseFor(cleanUp === 'by retention' ? WEEK : cleanUp);
  while (!stop.aborted) {
    if (isHolding()) {
      try {
        pause = pauseFor(await cleanOnce(options, cleanUp, stop));
      } catch (error) {
        // If the store does not support the given `cleanUp`, the option is invalid. Throw the error at once instead of
        // logging it every minute. But do not throw for `by retention`, because then the store's retention may have
        // changed since the relay asked for it.
        if (cleanUp !== 'by retention' && hasCode(error, 'INVALID_OPTION')) throw error;
        if (!isAborted(stop)) alike.tellError(toError(error));
      }
    }
    await sleepBy(clock, pause, stop);
  }
}

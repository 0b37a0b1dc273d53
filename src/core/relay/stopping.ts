import type { Clock } from '../util/clock.js';
import { durationOf } from '../util/error-text.js';
import { MessengerError } from '../errors.js';
import { onAbort, type Cut } from '../util/async.js';

/** How long a publisher whose call was aborted has to tell which messages were acknowledged. Milliseconds. */
export const ANSWER_GRACE = 500;

/** A relay has ended this long after the abort of its calls, even if something has not answered. Milliseconds. */
const LAST = 2_000;

/** How some work ends, from the moment when it is told to stop. */
export interface Stopping {
  /** When calls in flight are no longer waited for. */
  readonly cut: Cut;
  /** Resolves when nothing is waited for any longer. */
  readonly overdue: Promise<void>;
  /** To be called when the work has ended. Cancels the timers, and listens to the signals no longer. */
  readonly end: () => void;
}

/** @param stopTimeout How many milliseconds calls in flight are waited for. */
export function stoppingOf(stop: AbortSignal, stopTimeout: number, clock: Clock): Stopping {
  const cut = new AbortController();
  const cancels: (() => void)[] = [];
  let onOverdue: () => void = () => undefined;
  const overdue = new Promise<void>((resolve) => (onOverdue = resolve));
  const begin = () => {
    const abort = () => {
      const lasted = durationOf(stopTimeout);
      cut.abort(
        new MessengerError('TIMEOUT', `the publisher did not answer within ${lasted} after the relay was stopped`),
      );
    };
    cancels.push(clock.setTimeout(abort, stopTimeout), clock.setTimeout(onOverdue, stopTimeout + LAST));
  };
  // One listener waits for the cut all the time. Otherwise each call would add a listener to the signal, and remove it
  // again.
  cancels.push(
    onAbort(stop, begin),
    onAbort(cut.signal, () => undefined),
  );
  if (stop.aborted) begin();
  return {
    cut: { signal: cut.signal, grace: ANSWER_GRACE },
    overdue,
    end: () => {
      for (const cancel of cancels) cancel();
    },
  };
}

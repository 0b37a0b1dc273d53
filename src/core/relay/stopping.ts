import type { Clock } from '../util/clock.js';
import { durationOf } from '../util/error-text.js';
import { MessengerError } from '../errors.js';
import { onAbort, type Cut } from '../util/async.js';

/** How long a publisher has, after its call was aborted, to report which messages were acknowledged. Milliseconds. */
export const ANSWER_GRACE = 500;

/**
 * A relay ends this long after the abort of its calls, even if the publisher or the store has not answered.
 * Milliseconds.
 */
const LAST = 2_000;

/** The time limits for work that was asked to stop. */
export interface Stopping {
  /** When the relay stops waiting for calls in flight. */
  readonly cut: Cut;
  /** Resolves when the relay stops waiting altogether. */
  readonly overdue: Promise<void>;
  /** Call this when the work has ended. It cancels the timers, and stops listening to the signals. */
  readonly end: () => void;
}

/** @param stopTimeout How many milliseconds to wait for calls in flight. */
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
  // Keep one callback registered on the cut's signal all the time. Otherwise, each call would add a listener to the
  // signal and remove it again.
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

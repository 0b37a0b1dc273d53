import { systemClock, type Clock } from './clock.js';

/** The callbacks that are waiting for a signal, and the one listener that calls all of them. */
interface Waiting {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

const waitingFor = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls back when the signal aborts. Returns a function that removes the callback. All callbacks for a signal share one
 * listener, because Node warns of a leak at the eleventh listener, and a page needs more callbacks than that.
 */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let waiting = waitingFor.get(signal);
  if (waiting === undefined) {
    const callbacks = new Set<() => void>();
    const listener = () => {
      for (const each of [...callbacks]) each();
    };
    waiting = { callbacks, listener };
    waitingFor.set(signal, waiting);
    signal.addEventListener('abort', listener);
  }
  const { callbacks, listener } = waiting;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0 || waitingFor.get(signal)?.callbacks !== callbacks) return;
    waitingFor.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

/** Reads `aborted` again. The type checker otherwise assumes that `aborted` has not changed since it was last read. */
export function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

/**
 * Whether an error only reports that this signal aborted. If so, the error or one of its causes is the signal's reason.
 */
export function isAbort(error: unknown, { reason }: AbortSignal): boolean {
  if (reason === undefined) return false;
  for (let each = error; each !== undefined; each = each instanceof Error ? each.cause : undefined) {
    if (each === reason) return true;
  }
  return false;
}

/** Resolves after `ms` milliseconds, or as soon as one of the signals aborts. Never rejects. */
export function sleep(ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return sleepBy(systemClock, ms, ...signals);
}

/** Like `sleep`, but uses the given clock. If `ms` is `Infinity`, it sleeps until a signal aborts. */
export function sleepBy(clock: Clock, ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return sleepAmong(undefined, clock, ms, signals);
}

/**
 * Sleeps like `sleepBy`. If `sleeping` is given, it contains a callback during the sleep, which a bell can call to end
 * the sleep.
 */
function sleepAmong(
  sleeping: Set<() => void> | undefined,
  clock: Clock,
  ms: number,
  signals: readonly (AbortSignal | undefined)[],
): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal?.aborted === true)) {
      resolve();
      return;
    }
    const done = () => {
      cancel();
      sleeping?.delete(done);
      for (const forget of listening) forget();
      resolve();
    };
    sleeping?.add(done);
    const cancel = ms === Infinity ? () => undefined : clock.setTimeout(done, ms);
    const listening = signals.map((signal) => (signal ? onAbort(signal, done) : () => undefined));
  });
}

/**
 * Determines when a caller stops waiting for a call. When `signal` aborts, the call's own signal also aborts. The call
 * then has `grace` milliseconds to report what it has done.
 */
export interface Cut {
  readonly signal: AbortSignal;
  /** In milliseconds. */
  readonly grace: number;
}

/**
 * Runs `work` with a signal that aborts after `timeout` milliseconds, or when `parent` or `cut` aborts. The caller
 * stops waiting when this signal aborts, except that after `cut` aborts, it waits for `grace` more milliseconds. So
 * `work` cannot delay the caller by ignoring its signal. The signal is created only if `work` asks for it. When every
 * call created one, that took a fifth of the time for publishing a page with one message.
 *
 * @throws the abort reason, or the error from `work`.
 */
export function withDeadline<T>(
  timeout: number,
  parent: AbortSignal | undefined,
  reason: () => Error,
  work: (signal: () => AbortSignal) => Promise<T>,
  clock: Clock = systemClock,
  cut?: Cut,
): Promise<T> {
  let controller: AbortController | undefined;
  let over: { readonly why: Error } | undefined;
  const signal = () => {
    controller ??= new AbortController();
    if (over !== undefined) controller.abort(over.why);
    return controller.signal;
  };
  // Do not make this function async. When the broker answers immediately, each additional tick reduces the number of
  // pages that are settled together.
  return new Promise<T>((resolve, reject) => {
    parent?.throwIfAborted();
    const abort = (why: Error) => {
      over ??= { why };
      controller?.abort(why);
    };
    const giveUp = (why: Error) => {
      abort(why);
      fail(why);
    };
    const cancel = clock.setTimeout(() => {
      giveUp(reason());
    }, timeout);
    const forget =
      parent &&
      onAbort(parent, () => {
        giveUp(parent.reason as Error);
      });
    let cancelGrace: (() => void) | undefined;
    const forgetCut =
      cut &&
      onAbort(cut.signal, () => {
        const why = cut.signal.reason as Error;
        abort(why);
        cancelGrace = clock.setTimeout(() => {
          giveUp(why);
        }, cut.grace);
      });
    const end = () => {
      cancel();
      forget?.();
      forgetCut?.();
      cancelGrace?.();
    };
    const fail = (why: Error) => {
      end();
      reject(why);
    };
    try {
      // An application's function might not return a promise, even if its type says that it does.
      Promise.resolve(work(signal)).then((value) => {
        end();
        resolve(value);
      }, fail);
    } catch (error) {
      fail(error as Error);
    }
  });
}

/** Wakes every waiter when something changes. A ring has no effect if there are no waiters. */
export class Bell {
  readonly #waiting = new Set<() => void>();

  ring(): void {
    if (this.#waiting.size === 0) return;
    for (const wake of [...this.#waiting]) wake();
  }

  /** Resolves when the bell rings, after `ms` milliseconds, or as soon as one of the signals aborts. Never rejects. */
  wait(clock: Clock, ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
    return sleepAmong(this.#waiting, clock, ms, signals);
  }
}

/** Runs a task after all tasks that were passed before it have ended. */
export type InTurn = <T>(task: () => Promise<T>) => Promise<T>;

/**
 * Returns a function that runs tasks one at a time, in the order in which they are passed. A failed task does not stop
 * the others.
 */
export function serially(): InTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const result = last.then(task);
    last = result.catch(() => undefined);
    return result;
  };
}

/** Runs a task in its turn. Resolves as soon as the task has begun, without waiting for its result or its error. */
export function begun(inTurn: InTurn, task: () => Promise<void>): Promise<void> {
  return new Promise((begin) => {
    void inTurn(() => {
      const done = task();
      begin();
      return done;
    });
  });
}

import { systemClock, type Clock } from './clock.js';

/** What waits for a signal, and the one listener that tells all of it. */
interface Waiting {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

const waitingFor = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls back when the signal aborts, until the function that it returns is called. However many wait
 * for one signal, it has one listener: Node warns of a leak at the eleventh, and a page waits for more.
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
    signal.addEventListener('abort', listener, { once: true });
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

/** Asked anew: the type checker believes a signal to stay as it was when last looked at. */
export function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

/** Whether an error is no more than the answer to this signal. */
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

/** `sleep` by a clock; with `Infinity` until a signal aborts. */
export function sleepBy(clock: Clock, ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return sleepAmong(undefined, clock, ms, signals);
}

/** Sleeps as one of those that are called back when a bell rings. */
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

/** When an answer is no longer waited for: some time after the call was told, so that it can say what is done of it. */
export interface Cut {
  readonly signal: AbortSignal;
  /** Milliseconds. */
  readonly grace: number;
}

/**
 * Runs `work` with a signal that aborts after `timeout` milliseconds, with `parent` or with `cut`, and stops
 * waiting for it then: a `work` that ignores its signal cannot hold up its caller. The signal is made when it is asked
 * for: where nothing asks, it was a fifth of what publishing a page of one message costs.
 *
 * @throws the reason of the abort, or what `work` threw.
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
  // Not an async function: each further tick means that fewer pages are settled together where a broker answers at once.
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
      // Work of the application's may be no promise, whatever its type says.
      Promise.resolve(work(signal)).then((value) => {
        end();
        resolve(value);
      }, fail);
    } catch (error) {
      fail(error as Error);
    }
  });
}

/** Wakes whoever waits for something to change. What is rung while nobody waits is not kept. */
export class Bell {
  readonly #waiting = new Set<() => void>();

  ring(): void {
    if (this.#waiting.size === 0) return;
    for (const wake of [...this.#waiting]) wake();
  }

  /** Resolves when it rings, after `ms` milliseconds, or as soon as one of the signals aborts. Never rejects. */
  wait(clock: Clock, ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
    return sleepAmong(this.#waiting, clock, ms, signals);
  }
}

/** Runs a task after those before it. */
export type InTurn = <T>(task: () => Promise<T>) => Promise<T>;

/** Runs tasks one after the other, in the order in which they are given; one that fails holds up none. */
export function serially(): InTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const result = last.then(task);
    last = result.catch(() => undefined);
    return result;
  };
}

/** Gives a task its turn, and resolves once it has begun: its end, and what it fails with, are not waited for. */
export function begun(inTurn: InTurn, task: () => Promise<void>): Promise<void> {
  return new Promise((begin) => {
    void inTurn(() => {
      const done = task();
      begin();
      return done;
    });
  });
}

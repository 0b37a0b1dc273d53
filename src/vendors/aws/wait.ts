/** Resolves after so many milliseconds, or when the signal aborts; never rejects. */
export function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener('abort', end);
  });
}

/** Milliseconds before the next attempt: doubling, with up to a half of jitter so that a fleet spreads. */
export function backoff(failures: number, first: number, most: number): number {
  return Math.min(most, first * 2 ** Math.min(failures - 1, 30)) * (1 - Math.random() / 2);
}

/** Makes a call with a signal that aborts with the given one, or after so many milliseconds. */
export async function withTimeout<Result>(
  milliseconds: number,
  signal: AbortSignal | undefined,
  call: (options: { abortSignal: AbortSignal }) => Promise<Result>,
): Promise<Result> {
  // Not AbortSignal.any: on Node 20 a long-lived signal remembers every signal made of it.
  const controller = new AbortController();
  const abort = (): void => {
    controller.abort(signal?.reason);
  };
  const timer = setTimeout(() => {
    controller.abort(new Error(`no answer within ${String(milliseconds)} ms`));
  }, milliseconds);
  signal?.addEventListener('abort', abort);
  if (signal?.aborted === true) abort();
  try {
    return await call({ abortSignal: controller.signal });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Resolves after `ms` milliseconds, or as soon as one of the signals aborts. Never rejects. */
export function sleep(ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal?.aborted === true)) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    for (const signal of signals) signal?.addEventListener('abort', done, { once: true });
  });
}

/**
 * Runs `work` with a signal that aborts after `timeout` milliseconds or with `parent`, and stops
 * waiting for it then: a `work` that ignores its signal can not hold up its caller.
 *
 * @throws the reason of the abort, or what `work` threw.
 */
export async function withDeadline<T>(
  timeout: number,
  parent: AbortSignal | undefined,
  reason: () => Error,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const onParent = () => {
    controller.abort(parent?.reason);
  };
  if (parent?.aborted === true) onParent();
  else parent?.addEventListener('abort', onParent, { once: true });
  const timer = setTimeout(() => {
    controller.abort(reason());
  }, timeout);
  const { signal } = controller;
  try {
    return await new Promise<T>((resolve, reject) => {
      const onAbort = () => {
        reject(signal.reason as Error);
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      work(signal).then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    parent?.removeEventListener('abort', onParent);
  }
}

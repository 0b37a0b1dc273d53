/** A part of the demo that works until it is stopped. */
export interface Part {
  /** Resolves when it has ended, also when it failed. */
  readonly ended: Promise<void>;
  /** Tells it to end, and waits for it. */
  stop(): Promise<void>;
}

/** Parts that work side by side. */
export class Parts {
  readonly #failed = new AbortController();

  /** Aborted when a part failed: nothing good comes of the others alone. */
  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  begin(work: (signal: AbortSignal) => Promise<void>): Part {
    const end = new AbortController();
    const ended = work(end.signal).catch((error: unknown) => {
      this.#failed.abort(error);
    });
    return {
      ended,
      stop: () => {
        end.abort();
        return ended;
      },
    };
  }

  /** Throws what the first part that failed threw, if any did. */
  throwFailure(): void {
    this.#failed.signal.throwIfAborted();
  }
}

import { toError } from '../../../core/errors.js';

/** The largest number of entries in one request to SQS. */
const MAX_ENTRIES = 10;

/** Makes one batch call. Resolves to the error of each item, or `undefined`, in order. */
type Call<Item> = (items: readonly Item[]) => Promise<readonly (Error | undefined)[]>;

/**
 * Lets single calls share requests, without a timer. Calls that arrive while `parallel` requests are in flight go
 * together in the next request.
 */
export class BatchedCalls<Item> {
  readonly #call: Call<Item>;
  readonly #parallel: number;
  readonly #waiting: { readonly item: Item; readonly done: (error: Error | undefined) => void }[] = [];
  #inFlight = 0;

  constructor(call: Call<Item>, parallel: number) {
    this.#call = call;
    this.#parallel = parallel;
  }

  /** Resolves to the error of this item, or `undefined`. Never rejects. */
  run(item: Item): Promise<Error | undefined> {
    return new Promise((done) => {
      this.#waiting.push({ item, done });
      // Deferred, so that calls made together share the first request too.
      queueMicrotask(() => {
        this.#next();
      });
    });
  }

  #next(): void {
    while (this.#inFlight < this.#parallel && this.#waiting.length > 0) {
      this.#inFlight += 1;
      void this.#send(this.#waiting.splice(0, MAX_ENTRIES)).then(() => {
        this.#inFlight -= 1;
        this.#next();
      });
    }
  }

  async #send(batch: readonly { readonly item: Item; readonly done: (error: Error | undefined) => void }[]) {
    try {
      const errors = await this.#call(batch.map(({ item }) => item));
      batch.forEach(({ done }, i) => {
        done(errors[i]);
      });
    } catch (thrown) {
      const error = toError(thrown);
      for (const { done } of batch) done(error);
    }
  }
}

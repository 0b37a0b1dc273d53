/** Calls of processes to the store: how long they take, and what may go wrong with them. */
import type { Chance } from './chance.js';
import type { Process, Timeline } from './clock.js';
import type { Faults, Note } from './faults.js';

/** When a client gives up a call that is not answered. Milliseconds. */
const STORE_TIMEOUT = 150;

export class Network {
  readonly #timeline: Timeline;
  readonly #chance: Chance;
  readonly #faults: Faults;
  readonly #note: Note | undefined;
  /** Until when the store refuses everything. */
  outageUntil = 0;

  constructor(timeline: Timeline, chance: Chance, faults: Faults, note: Note | undefined) {
    this.#note = note;
    this.#timeline = timeline;
    this.#chance = chance;
    this.#faults = faults;
  }

  /** How long a request, or an answer, is under way. */
  delay(): number {
    return this.#faults.hits('slow network') ? this.#chance.between(20, 80) : this.#chance.random() * 3;
  }

  /** A call of a process to the store. What `effect` throws is the answer, too. */
  call<T>(process: Process, name: string, effect: () => T, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const out = process.request();
      if (out === undefined) return;
      const onAbort = () => {
        finish(() => {
          reject(signal?.reason as Error);
        });
      };
      let isOver = false;
      const finish = (how: () => void) => {
        if (isOver) return;
        isOver = true;
        giveUp();
        signal?.removeEventListener('abort', onAbort);
        how();
      };
      const giveUp = process.clock.setTimeout(() => {
        finish(() => {
          reject(new Error(`the store did not answer within ${STORE_TIMEOUT} ms`));
        });
      }, STORE_TIMEOUT);
      signal?.addEventListener('abort', onAbort);
      const answer = (how: () => void) => {
        this.#timeline.after(this.delay(), () => {
          process.give('network', () => {
            finish(how);
          });
        });
      };
      const fail = (why: string) => {
        answer(() => {
          reject(new Error(why));
        });
      };
      const faults = this.#faults;
      const isLate = faults.hits('store: call arrives when it was given up');
      const late = isLate ? STORE_TIMEOUT + this.#chance.between(0, 600) : 0;
      this.#timeline.after(out + late + this.delay(), () => {
        this.#note?.(`${process.name}: ${name}`);
        if (this.#timeline.now < this.outageUntil) {
          fail('the store cannot be reached');
        } else if (faults.hits('store: call fails')) {
          fail('the connection to the store broke');
        } else if (!faults.hits('store: call is lost')) {
          const how = attempt(effect, resolve, (error) => {
            this.#note?.(`${process.name}: ${name} is refused: ${error.message}`);
            reject(error);
          });
          if (faults.hits('store: answer is an error')) fail('the connection to the store broke after the change');
          else if (!faults.hits('store: answer is lost')) answer(how);
        }
      });
    });
  }
}

function attempt<T>(effect: () => T, resolve: (value: T) => void, reject: (error: Error) => void): () => void {
  try {
    const result = effect();
    return () => {
      resolve(result);
    };
  } catch (error) {
    return () => {
      reject(error as Error);
    };
  }
}

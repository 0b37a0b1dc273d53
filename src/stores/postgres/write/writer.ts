import type { Message } from '../../../core/contracts/message.js';
import { runnerOf, type TransactionHandle } from '../drivers/index.js';
import type { StoreSettings } from '../options.js';
import { ended, storeError } from '../schema/store-error.js';
import { encodeMessages } from './encode.js';
import { markedText } from './marked.js';
import { storing, TRANSACTION, type Storing, type WakeKeys } from './wake-locks.js';

/** Stores messages in the application's transactions. Each call runs one statement. */
export class Writer<Input, Tx> {
  readonly #settings: StoreSettings<Input, Tx>;
  readonly #storing: Storing;
  /**
   * For each handle, the string that identifies the transaction in which the handle last wrote. The map contains only
   * handles that belong to a single transaction.
   */
  readonly #transactions = new WeakMap<object, string>();

  /** With `keys`, the statements that store messages also wake sleeping relays. */
  constructor(settings: StoreSettings<Input, Tx>, keys: WakeKeys | undefined) {
    this.#settings = settings;
    this.#storing = storing(settings.names, settings.tables.jsonPayload, keys);
  }

  /** See `PostgresStore.add`. */
  async add(transaction: TransactionHandle | Tx, messages: Input | readonly Input[]): Promise<readonly Message[]> {
    const { run, isOneTransaction, known } = runnerOf(transaction, this.#settings.bridge);
    const { stored, value, isAddressed } = this.#prepare(messages);
    if (stored.length === 0) return stored;
    const expected = this.#transactions.get(transaction as object);
    try {
      const result = await run(this.#storing.inTransaction(isAddressed), [value, expected ?? known]);
      const current = isOneTransaction ? markedText(TRANSACTION, result) : undefined;
      if (expected !== undefined && current !== expected) throw ended();
      if (current !== undefined) this.#transactions.set(transaction as object, current);
    } catch (error) {
      throw storeError(error, this.#settings.names);
    }
    return stored;
  }

  /** See `PostgresStore.statement`. */
  statement(messages: Input | readonly Input[]): { text: string; values: string[] } {
    const { value, isAddressed } = this.#prepare(messages);
    return { text: this.#storing.inBatch(isAddressed), values: [value] };
  }

  #prepare(messages: Input | readonly Input[]): { stored: readonly Message[]; value: string; isAddressed: boolean } {
    const inputs = (Array.isArray(messages) ? messages : [messages]) as readonly Input[];
    const stored = inputs.map((input) => this.#settings.transform(input));
    const value = encodeMessages(stored, this.#settings.tables.jsonPayload);
    const isAddressed = stored.some(({ destination }) => destination !== undefined);
    return { stored, value, isAddressed };
  }
}

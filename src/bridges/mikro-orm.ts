/**
 * Writes through the transactions of MikroORM: `new PostgresStore(pool, { bridge: mikroOrmBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { splitAtPlaces } from './_shared/placeholders.js';
import { hasMethods } from '../core/util/options.js';

/** The slice of MikroORM's `EntityManager` that is used. */
export interface MikroOrmTransaction {
  getTransactionContext(): unknown;
  getConnection(): {
    execute(query: string, params: string[], method: 'run', context: never): PromiseLike<unknown>;
  };
}

/** A transaction of Knex, which MikroORM 6 and older run on. */
interface KnexTransaction {
  readonly executionPromise?: Promise<unknown>;
  readonly parentTransaction?: KnexTransaction;
  isCompleted?(): boolean;
}

/**
 * Takes the `em` of `em.transactional`, also of one within another, or one on which `em.begin` was called. It writes at
 * once, and does not wait for a flush. Types cannot tell an `em` without a transaction: it is refused when it is used.
 */
export function mikroOrmBridge(): TransactionBridge<MikroOrmTransaction> {
  return {
    handleName: 'the em of MikroORM’s em.transactional',
    isHandle: (handle) => hasMethods(handle, 'getTransactionContext', 'getConnection', 'transactional'),
    refusalOf(em) {
      const context = em.getTransactionContext() as KnexTransaction | undefined;
      if (!context) {
        return 'a MikroORM em that is in no transaction commits every query by itself: pass the em that em.transactional gives';
      }
      // The em of `transactional` keeps its context when it is over.
      return context.isCompleted?.() === true ? 'this MikroORM transaction is over' : undefined;
    },
    execute(em, text, values) {
      const { strings, places } = splitAtPlaces(text, values);
      // MikroORM writes `\?` for a `?` of the statement itself, and takes `??` for a name: hence the spaces.
      const query = strings.map((string) => string.replaceAll('?', '\\?')).join(' ? ');
      return em.getConnection().execute(query, places, 'run', em.getTransactionContext() as never);
    },
    onCommit(em, callback) {
      let context = em.getTransactionContext() as KnexTransaction | undefined;
      // What is within another transaction is committed with that one.
      while (context?.parentTransaction) context = context.parentTransaction;
      context?.executionPromise?.then(callback, () => undefined);
    },
  };
}

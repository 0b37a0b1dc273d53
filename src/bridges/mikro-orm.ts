/**
 * Writes through the transactions of MikroORM: `new PostgresStore(pool, { bridge: mikroOrmBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { splitAtPlaces } from './_shared/placeholders.js';
import { hasMethods } from '../core/util/options.js';

/** The part of MikroORM's `EntityManager` that the bridge uses. */
export interface MikroOrmTransaction {
  getTransactionContext(): unknown;
  getConnection(): {
    execute(query: string, params: string[], method: 'run', context: never): PromiseLike<unknown>;
  };
}

/** A Knex transaction. MikroORM 6 and older are built on Knex. */
interface KnexTransaction {
  readonly executionPromise?: Promise<unknown>;
  readonly parentTransaction?: KnexTransaction;
  isCompleted?(): boolean;
}

/**
 * Accepts the `em` from `em.transactional`, nested or not, or an `em` on which `em.begin` was called. Messages are
 * written at once, without waiting for a flush. The types cannot exclude an `em` without a transaction, so such an `em`
 * is rejected at run time.
 */
export function mikroOrmBridge(): TransactionBridge<MikroOrmTransaction> {
  return {
    handleName: 'the em of MikroORM’s em.transactional',
    isHandle: (handle) => hasMethods(handle, 'getTransactionContext', 'getConnection', 'transactional'),
    refusalOf(em) {
      const context = em.getTransactionContext() as KnexTransaction | undefined;
      if (!context) {
        return 'a MikroORM em outside a transaction commits every query by itself: pass the em that em.transactional gives you';
      }
      // The `em` from `transactional` keeps its context after the transaction has ended.
      return context.isCompleted?.() === true
        ? 'this MikroORM transaction has ended: store before it commits or rolls back'
        : undefined;
    },
    execute(em, text, values) {
      const { strings, places } = splitAtPlaces(text, values);
      // In MikroORM, `\?` is a `?` of the statement itself, and `??` is a placeholder for a name. The spaces prevent a
      // `??`.
      const query = strings.map((string) => string.replaceAll('?', '\\?')).join(' ? ');
      return em.getConnection().execute(query, places, 'run', em.getTransactionContext() as never);
    },
    onCommit(em, callback) {
      let context = em.getTransactionContext() as KnexTransaction | undefined;
      // A nested transaction is committed with the outer one.
      while (context?.parentTransaction) context = context.parentTransaction;
      context?.executionPromise?.then(callback, () => undefined);
    },
  };
}

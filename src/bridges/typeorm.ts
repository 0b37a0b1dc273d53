/**
 * Writes through the transactions of TypeORM: `new PostgresStore(pool, { bridge: typeormBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The object that holds the connection, and knows the state of its transaction. */
interface Runner {
  readonly isTransactionActive?: boolean;
  readonly isReleased?: boolean;
}

/** The part of TypeORM's `EntityManager` or `QueryRunner` that is used, and what only a `DataSource` has. */
export interface TypeormTransaction extends Runner {
  query(query: string, parameters?: string[]): PromiseLike<unknown>;
  readonly queryRunner?: Runner;
  readonly createQueryRunner?: never;
}

/**
 * Accepts the `manager` of `dataSource.transaction`, also of a nested one; or a `QueryRunner` that has started a
 * transaction, or its `manager`. Types cannot tell `dataSource.manager` from these, so it is refused when it is used.
 *
 * A transaction that has ended is refused if TypeORM itself ended it, but not if it was ended by a `COMMIT` or
 * `ROLLBACK` sent as SQL.
 *
 * TypeORM tells only the subscribers of a data source of a commit, so relays are woken by notifications, or look at
 * their interval.
 */
export function typeormBridge(): TransactionBridge<TypeormTransaction> {
  return {
    handleName: 'the manager of TypeORM’s dataSource.transaction',
    // A QueryRunner looks much like a client of pg, and would be taken for one.
    isHandle: (handle) =>
      hasMethods(handle, 'query', 'getRepository') || hasMethods(handle, 'query', 'startTransaction'),
    refusalOf(transaction) {
      const runner = transaction.queryRunner ?? transaction;
      if (runner.isTransactionActive === undefined) {
        return 'a TypeORM DataSource and its manager commit every query by themselves: pass the manager that dataSource.transaction gives you';
      }
      return runner.isTransactionActive && runner.isReleased !== true
        ? undefined
        : 'this TypeORM transaction has ended, or has not begun: store while it is open';
    },
    execute: (transaction, text, values) => transaction.query(text, [...values]),
  };
}

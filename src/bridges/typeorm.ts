/**
 * Writes through the transactions of TypeORM: `new PostgresStore(pool, { bridge: typeormBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The object that holds the connection, and reports the state of its transaction. */
interface Runner {
  readonly isTransactionActive?: boolean;
  readonly isReleased?: boolean;
}

/**
 * The part of TypeORM's `EntityManager` or `QueryRunner` that the bridge uses. Only a `DataSource` has
 * `createQueryRunner`.
 */
export interface TypeormTransaction extends Runner {
  query(query: string, parameters?: string[]): PromiseLike<unknown>;
  readonly queryRunner?: Runner;
  readonly createQueryRunner?: never;
}

/**
 * Accepts the `manager` from `dataSource.transaction`, nested or not. Also accepts a `QueryRunner` that has started a
 * transaction, or its `manager`. The types cannot exclude `dataSource.manager`, so it is rejected at run time.
 *
 * A transaction that has ended is rejected if TypeORM itself ended it, but not if a `COMMIT` or `ROLLBACK` that was
 * sent as SQL ended it.
 *
 * TypeORM reports a commit only to the subscribers of a data source, so notifications wake the relays, or the relays
 * poll at their interval.
 */
export function typeormBridge(): TransactionBridge<TypeormTransaction> {
  return {
    handleName: 'the manager of TypeORM’s dataSource.transaction',
    // A QueryRunner looks much like a `pg` client, and would otherwise be taken for one.
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

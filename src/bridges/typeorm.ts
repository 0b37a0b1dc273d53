/**
 * Writes through the transactions of TypeORM: `new PostgresStore(pool, { bridge: typeormBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** Who holds the connection, and knows how its transaction stands. */
interface Runner {
  readonly isTransactionActive?: boolean;
  readonly isReleased?: boolean;
}

/** The slice of TypeORM's `EntityManager` or `QueryRunner` that is used, and what only a `DataSource` has. */
export interface TypeormTransaction extends Runner {
  query(query: string, parameters?: string[]): PromiseLike<unknown>;
  readonly queryRunner?: Runner;
  readonly createQueryRunner?: never;
}

/**
 * Takes the `manager` of `dataSource.transaction`, also of one within another, or a `QueryRunner` that has started a
 * transaction, or its `manager`. Types cannot tell `dataSource.manager` from these: it is refused when it is used.
 *
 * What is over is refused as long as TypeORM itself ended it, and not a `COMMIT` or `ROLLBACK` that it was given as SQL.
 *
 * A commit is told to the subscribers of a data source alone: relays are woken by notifications, or look by their
 * interval.
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
        return 'a TypeORM DataSource and its manager commit every query by themselves: pass the manager that dataSource.transaction gives';
      }
      return runner.isTransactionActive && runner.isReleased !== true
        ? undefined
        : 'this TypeORM transaction is over, or has not begun';
    },
    execute: (transaction, text, values) => transaction.query(text, [...values]),
  };
}

/**
 * Writes through the transactions of Sequelize: `new PostgresStore(pool, { bridge: sequelizeBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The slice of Sequelize's `Transaction` that is used, as its types have it. */
export interface SequelizeTransaction {
  commit(): Promise<void>;
  rollback(): Promise<void>;
  afterCommit(hook: () => void): void;
}

/** What it has besides, and the types of Sequelize 6 leave out. */
interface Whole extends SequelizeTransaction {
  readonly sequelize: { query(text: string, options: object): PromiseLike<unknown> };
  /** Set as soon as the end is asked for. */
  readonly finished?: 'commit' | 'rollback';
  readonly parent?: Whole | null;
}

/**
 * Takes the transaction of `sequelize.transaction`, managed or not, also a nested one. Relays of this process are
 * woken by the commit of the outermost transaction.
 */
export function sequelizeBridge(): TransactionBridge<SequelizeTransaction> {
  return {
    handleName: 'the transaction of Sequelize’s sequelize.transaction',
    isHandle: (handle) =>
      hasMethods(handle, 'commit', 'rollback', 'afterCommit') || hasMethods(handle, 'query', 'define', 'authenticate'),
    refusalOf(transaction) {
      if (!hasMethods(transaction, 'commit')) {
        return 'a Sequelize instance commits every query by itself: pass the transaction that sequelize.transaction gives';
      }
      // Sequelize does not look at the outer ones, and would write to a connection that is back in the pool.
      return lineOf(transaction).some(({ finished }) => finished) ? 'this Sequelize transaction is over' : undefined;
    },
    // Sequelize reads `$$` as `$`, and `$word` as the name of a value. A search path would make it two statements.
    execute: (transaction, text, values) =>
      (transaction as Whole).sequelize.query(text.replace(/\B\$(?=\$|[^\W\d])/g, '$$$$'), {
        bind: values,
        transaction,
        supportsSearchPath: false,
      }),
    // A nested one calls back when it is done, which is no commit.
    onCommit: (transaction, callback) => lineOf(transaction).at(-1)?.afterCommit(callback),
  };
}

/** A transaction and those that it is nested in, the outermost last. */
function lineOf(transaction: SequelizeTransaction): Whole[] {
  const line = [transaction as Whole];
  for (let outer = line[0]?.parent; outer; outer = outer.parent) line.push(outer);
  return line;
}

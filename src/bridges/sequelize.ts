/**
 * Writes through the transactions of Sequelize: `new PostgresStore(pool, { bridge: sequelizeBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Sequelize's `Transaction` that the bridge uses, as Sequelize's types declare it. */
export interface SequelizeTransaction {
  commit(): Promise<void>;
  rollback(): Promise<void>;
  afterCommit(hook: () => void): void;
}

/** The properties that a transaction also has, but that the types of Sequelize 6 omit. */
interface Whole extends SequelizeTransaction {
  readonly sequelize: { query(text: string, options: object): PromiseLike<unknown> };
  /** Set as soon as the application requests a commit or a rollback. */
  readonly finished?: 'commit' | 'rollback';
  readonly parent?: Whole | null;
}

/**
 * Accepts the transaction from `sequelize.transaction`, managed or not, nested or not. The commit of the outermost
 * transaction wakes the relays in this process.
 */
export function sequelizeBridge(): TransactionBridge<SequelizeTransaction> {
  return {
    handleName: 'the transaction of Sequelize’s sequelize.transaction',
    isHandle: (handle) =>
      hasMethods(handle, 'commit', 'rollback', 'afterCommit') || hasMethods(handle, 'query', 'define', 'authenticate'),
    refusalOf(transaction) {
      if (!hasMethods(transaction, 'commit')) {
        return 'a Sequelize instance commits every query by itself: pass the transaction that sequelize.transaction gives you';
      }
      // Sequelize does not check the outer transactions, and would write to a connection that is already back in the
      // pool.
      return lineOf(transaction).some(({ finished }) => finished)
        ? 'this Sequelize transaction has ended: store before it commits or rolls back'
        : undefined;
    },
    // Sequelize reads `$$` as `$`, and `$word` as the name of a value. With a search path, it would send two
    // statements.
    execute: (transaction, text, values) =>
      (transaction as Whole).sequelize.query(text.replace(/\B\$(?=\$|[^\W\d])/g, '$$$$'), {
        bind: values,
        transaction,
        supportsSearchPath: false,
      }),
    // A nested transaction calls its hook when it is done, which is not a commit.
    onCommit: (transaction, callback) => lineOf(transaction).at(-1)?.afterCommit(callback),
  };
}

/** Returns a transaction and the transactions in which it is nested, the outermost last. */
function lineOf(transaction: SequelizeTransaction): Whole[] {
  const line = [transaction as Whole];
  for (let outer = line[0]?.parent; outer; outer = outer.parent) line.push(outer);
  return line;
}

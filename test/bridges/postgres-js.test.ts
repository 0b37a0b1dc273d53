import postgres from 'postgres';
import type { PostgresJsTransaction } from '../../src/stores/postgres/drivers/postgres-js.js';
import { bridgeSuite, type Library } from './suite.js';

bridgeSuite(
  'postgres.js',
  { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false },
  (url) => {
    const sql = postgres(url, { max: 5, onnotice: () => undefined });
    type Transaction = PostgresJsTransaction & postgres.TransactionSql;
    return Promise.resolve<Library<Transaction>>({
      client: sql,
      transaction: (work) => sql.begin((tx) => work(tx as Transaction)) as ReturnType<typeof work>,
      savepoint: (tx, work) => tx.savepoint((inner: postgres.TransactionSql) => work(inner as Transaction)),
      insert: (tx, id) => tx`INSERT INTO orders (id) VALUES (${id})`,
      roots: [sql],
      close: () => sql.end(),
    });
  },
);

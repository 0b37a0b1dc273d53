import { sql } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { Kysely, Transaction } from 'kysely';
import { CompiledQuery } from 'kysely';
import type pg from 'pg';
import { describe, expectTypeOf, it } from 'vitest';
import type { Prisma, PrismaClient } from '../../examples/prisma/generated/client.js';
import { createInbox } from '../../src/inbox/index.js';
import type { Inbox } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { drizzleBridge } from '../../src/transactions/drizzle.js';
import { kyselyBridge } from '../../src/transactions/kysely.js';
import { prismaBridge } from '../../src/transactions/prisma.js';

// Checked by `tsc`; nothing of it has to run.
type TxOf<T> = T extends Inbox<infer Tx> ? Tx : never;
interface Tables {
  orders: { id: string };
}

describe('an inbox', () => {
  it('hands out the transaction of the library, as it is', () => {
    const _drizzle = (pool: pg.Pool, db: NodePgDatabase) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: drizzleBridge(sql) }),
        consumer: 'billing',
        transaction: db.transaction.bind(db),
      });
    expectTypeOf<TxOf<ReturnType<typeof _drizzle>>>().toHaveProperty('insert');
    expectTypeOf<TxOf<ReturnType<typeof _drizzle>>>().toHaveProperty('rollback');

    const _prisma = (pool: pg.Pool, client: PrismaClient) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: prismaBridge() }),
        consumer: 'billing',
        transaction: (work: (tx: Prisma.TransactionClient) => Promise<void>) => client.$transaction(work),
      });
    expectTypeOf<TxOf<ReturnType<typeof _prisma>>>().toEqualTypeOf<Prisma.TransactionClient>();

    const _kysely = (pool: pg.Pool, db: Kysely<Tables>) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) }),
        consumer: 'billing',
        transaction: (work: (trx: Transaction<Tables>) => Promise<void>) => db.transaction().execute(work),
      });
    expectTypeOf<TxOf<ReturnType<typeof _kysely>>>().toEqualTypeOf<Transaction<Tables>>();
  });

  it('does not compile with a store that can not write through that transaction, nor with one of which nothing is known', () => {
    const wrong = (pool: pg.Pool, db: Kysely<Tables>) => {
      const store = new PostgresStore(pool);
      const transaction = (work: (trx: Transaction<Tables>) => Promise<void>) => db.transaction().execute(work);
      // @ts-expect-error no bridge for Kysely
      createInbox({ store, consumer: 'billing', transaction });
      // @ts-expect-error it does not say what it calls its function with: parameter 'work' implicitly has an 'any' type
      createInbox({ store, consumer: 'billing', transaction: (work) => db.transaction().execute(work) }); // eslint-disable-line @typescript-eslint/no-unsafe-argument
    };
    expectTypeOf(wrong).toBeFunction();
  });
});

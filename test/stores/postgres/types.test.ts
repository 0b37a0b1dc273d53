import type { PGlite, Transaction } from '@electric-sql/pglite';
import type * as neon from '@neondatabase/serverless';
import type pg from 'pg';
import type postgres from 'postgres';
import { describe, expect, expectTypeOf, it } from 'vitest';
import type { FeedStore } from '../../../src/core/contracts/store.js';
import type { Message } from '../../../src/core/contracts/message.js';
import { PostgresStore, type PostgresClient, type TransactionHandle } from '../../../src/stores/postgres/index.js';

// `tsc` checks this file, like all others. None of it has to run.
describe('the types of the real clients', () => {
  it('are clients of the store', () => {
    expectTypeOf<pg.Pool>().toExtend<PostgresClient>();
    expectTypeOf<pg.Client>().toExtend<PostgresClient>();
    expectTypeOf<postgres.Sql>().toExtend<PostgresClient>();
    expectTypeOf<postgres.Sql<{ bigint: bigint }>>().toExtend<PostgresClient>();
    expectTypeOf<PGlite>().toExtend<PostgresClient>();
    expectTypeOf<neon.Pool>().toExtend<PostgresClient>();
    expectTypeOf<neon.Client>().toExtend<PostgresClient>();
    expectTypeOf<typeof PostgresStore>().toBeConstructibleWith(expect.anything() as pg.Pool);
  });

  it('are transaction handles', () => {
    expectTypeOf<pg.Client>().toExtend<TransactionHandle>();
    expectTypeOf<pg.PoolClient>().toExtend<TransactionHandle>();
    expectTypeOf<neon.PoolClient>().toExtend<TransactionHandle>();
    expectTypeOf<postgres.TransactionSql>().toExtend<TransactionHandle>();
    expectTypeOf<postgres.TransactionSql<{ bigint: bigint }>>().toExtend<TransactionHandle>();
    expectTypeOf<postgres.ReservedSql>().toExtend<TransactionHandle>();
    expectTypeOf<Transaction>().toExtend<TransactionHandle>();
    expectTypeOf((text: string, values: readonly string[]) =>
      Promise.resolve([text, values]),
    ).toExtend<TransactionHandle>();
    expectTypeOf((text: string) => Promise.resolve(text)).toExtend<TransactionHandle>();
  });

  it('are not transaction handles if they commit by themselves, or are something else', () => {
    expectTypeOf<pg.Pool>().not.toExtend<TransactionHandle>();
    expectTypeOf<postgres.Sql>().not.toExtend<TransactionHandle>();
    expectTypeOf<PGlite>().not.toExtend<TransactionHandle>();
    expectTypeOf<neon.Pool>().not.toExtend<TransactionHandle>();
    expectTypeOf<neon.NeonQueryFunction<false, false>>().not.toExtend<TransactionHandle>();
    expectTypeOf<undefined>().not.toExtend<TransactionHandle>();
    expectTypeOf<string>().not.toExtend<TransactionHandle>();
    expectTypeOf<Record<string, never>>().not.toExtend<TransactionHandle>();
    expectTypeOf<string>().not.toExtend<PostgresClient>();
  });

  it('make a store on which relays can work', () => {
    expectTypeOf<PostgresStore>().toExtend<FeedStore>();
    expectTypeOf<ReturnType<PostgresStore['add']>>().resolves.toEqualTypeOf<readonly Message[]>();
    expectTypeOf<ReturnType<PostgresStore['statement']>>().toEqualTypeOf<{ text: string; values: string[] }>();
  });

  it('fail to compile without a handle, or with a value that cannot be stored', () => {
    const calls = (store: PostgresStore, numbers: PostgresStore<number>, client: pg.PoolClient, pool: pg.Pool) => [
      store.add(client, 'text'),
      store.add(client, [{ order: 1 }, new Uint8Array([1])]),
      numbers.add(client, [1, 2]),
      // @ts-expect-error a missing handle would lose atomicity in silence
      store.add('message'),
      // @ts-expect-error so does one that is undefined
      store.add(undefined, 'message'),
      // @ts-expect-error a Pool commits every query by itself
      store.add(pool, 'message'),
      // @ts-expect-error a number is no message by the default transform
      store.add(client, 1),
      // @ts-expect-error this store's transform takes numbers
      numbers.add(client, 'text'),
      // @ts-expect-error no such option
      new PostgresStore(pool, { schemas: 'x' }),
    ];
    expect(calls).toBeTypeOf('function');
  });
});

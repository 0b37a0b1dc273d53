import type { PGlite, Transaction as PGliteTransaction } from '@electric-sql/pglite';
import type { EntityManager as MikroOrmEntityManager, MikroORM } from '@mikro-orm/postgresql';
import { sql } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { Knex } from 'knex';
import { CompiledQuery, type Kysely, type Transaction as KyselyTransaction } from 'kysely';
import type pg from 'pg';
import type { Sql, TransactionSql } from 'postgres';
import type { Sequelize, Transaction as SequelizeTransaction } from 'sequelize';
import type { DataSource, EntityManager } from 'typeorm';
import { describe, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import type { Prisma, PrismaClient } from '../../examples/prisma/generated/client.js';
import { defineTopics, subscribe, type Subscriber } from '../../src/index.js';
import { createInbox, type StoreInbox } from '../../src/inbox/index.js';
import type { MemoryStore, MemoryTransaction } from '../../src/stores/memory/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { drizzleBridge } from '../../src/bridges/drizzle.js';
import { knexBridge } from '../../src/bridges/knex.js';
import { kyselyBridge } from '../../src/bridges/kysely.js';
import { mikroOrmBridge } from '../../src/bridges/mikro-orm.js';
import { prismaBridge } from '../../src/bridges/prisma.js';
import { sequelizeBridge } from '../../src/bridges/sequelize.js';
import { typeormBridge } from '../../src/bridges/typeorm.js';

// `tsc` checks this file, like all others. None of it has to run.
const consumer = 'billing';
const topics = defineTopics({ 'order.created': { schema: z.object({ id: z.string() }) } });

describe('an inbox gives its handlers the transaction', () => {
  it('of Drizzle', () => {
    const inbox = (pool: pg.Pool, db: NodePgDatabase) => {
      const store = new PostgresStore(pool, { bridge: drizzleBridge(sql) });
      return createInbox({ store, consumer, transaction: (fn) => db.transaction(fn) });
    };
    type Tx = Parameters<Parameters<NodePgDatabase['transaction']>[0]>[0];
    expectTypeOf(inbox).returns.toEqualTypeOf<StoreInbox<Tx>>();
    const subscribed = (pool: pg.Pool, db: NodePgDatabase, subscriber: Subscriber, signal: AbortSignal) =>
      subscribe(subscriber, {
        name: consumer,
        topics,
        inbox: inbox(pool, db),
        signal,
        handlers: {
          'order.created': ({ id }, { tx }) => {
            expectTypeOf(tx).toEqualTypeOf<Tx>();
            return tx.execute(sql`INSERT INTO invoices VALUES (${id})`);
          },
        },
      });
    expectTypeOf(subscribed).toBeFunction();
  });

  it('of Kysely, Prisma, Knex, TypeORM, MikroORM and Sequelize', () => {
    const kysely = (pool: pg.Pool, db: Kysely<{ orders: { id: string } }>) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) }),
        consumer,
        transaction: (fn) => db.transaction().execute(fn),
      });
    expectTypeOf(kysely).returns.toEqualTypeOf<StoreInbox<KyselyTransaction<{ orders: { id: string } }>>>();
    const prisma = (pool: pg.Pool, client: PrismaClient) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: prismaBridge() }),
        consumer,
        transaction: (fn) => client.$transaction(fn),
      });
    expectTypeOf(prisma).returns.toExtend<StoreInbox<Prisma.TransactionClient>>();
    const knex = (pool: pg.Pool, db: Knex) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: knexBridge() }),
        consumer,
        transaction: (fn) => db.transaction(fn),
      });
    expectTypeOf(knex).returns.toEqualTypeOf<StoreInbox<Knex.Transaction>>();
    const typeorm = (pool: pg.Pool, db: DataSource) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: typeormBridge() }),
        consumer,
        transaction: (fn) => db.transaction(fn),
      });
    expectTypeOf(typeorm).returns.toEqualTypeOf<StoreInbox<EntityManager>>();
    const mikroOrm = (pool: pg.Pool, orm: MikroORM) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: mikroOrmBridge() }),
        consumer,
        transaction: (fn) => orm.em.fork().transactional(fn),
      });
    expectTypeOf(mikroOrm).returns.toExtend<StoreInbox<MikroOrmEntityManager>>();
    const sequelize = (pool: pg.Pool, db: Sequelize) =>
      createInbox({
        store: new PostgresStore(pool, { bridge: sequelizeBridge() }),
        consumer,
        transaction: (fn) => db.transaction(fn),
      });
    expectTypeOf(sequelize).returns.toEqualTypeOf<StoreInbox<SequelizeTransaction>>();
  });

  it('of pg, postgres.js, PGlite and the store in memory', () => {
    const onPg = (pool: pg.Pool) =>
      createInbox({
        store: new PostgresStore(pool),
        consumer,
        transaction: async (fn) => {
          const client = await pool.connect();
          await client.query('BEGIN');
          const result = await fn(client);
          await client.query('COMMIT');
          return result;
        },
      });
    expectTypeOf(onPg).returns.toEqualTypeOf<StoreInbox<pg.PoolClient>>();
    const ofApplication = (
      pool: pg.Pool,
      inTransaction: <T>(work: (client: pg.PoolClient) => Promise<T>) => Promise<T>,
    ) => createInbox({ store: new PostgresStore(pool), consumer, transaction: (fn) => inTransaction(fn) });
    expectTypeOf(ofApplication).returns.toEqualTypeOf<StoreInbox<pg.PoolClient>>();
    const postgresJs = (db: Sql) =>
      createInbox({ store: new PostgresStore(db), consumer, transaction: (fn) => db.begin(fn) });
    expectTypeOf(postgresJs).returns.toEqualTypeOf<StoreInbox<TransactionSql>>();
    const pglite = (db: PGlite) =>
      createInbox({ store: new PostgresStore(db), consumer, transaction: (fn) => db.transaction(fn) });
    expectTypeOf(pglite).returns.toEqualTypeOf<StoreInbox<PGliteTransaction>>();
    const memory = (store: MemoryStore) => createInbox({ store, consumer, transaction: (fn) => store.transaction(fn) });
    expectTypeOf(memory).returns.toEqualTypeOf<StoreInbox<MemoryTransaction>>();
  });
});

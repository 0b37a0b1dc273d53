import pg from 'pg';
import { DataTypes, Sequelize, type Transaction } from 'sequelize';
import { afterAll, describe, expect, expectTypeOf, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { sequelizeBridge, type SequelizeTransaction } from '../../src/bridges/sequelize.js';
import { bridgeSuite, type Library } from './suite.js';

const FEATURES = { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: true } as const;

bridgeSuite('Sequelize on pg', FEATURES, (url) => {
  const sequelize = new Sequelize(url, {
    dialectModule: pg,
    logging: false,
    pool: { max: 5 },
    dialectOptions: { prependSearchPath: true },
  });
  const id = { type: DataTypes.TEXT, primaryKey: true };
  const orders = sequelize.define('order', { id }, { tableName: 'orders', timestamps: false });
  return Promise.resolve<Library<Transaction, SequelizeTransaction>>({
    bridge: sequelizeBridge(),
    transaction: (work) => sequelize.transaction(work),
    savepoint: (transaction, work) => sequelize.transaction({ transaction }, work),
    insert: (transaction, order) => orders.create({ id: order }, { transaction }),
    roots: [sequelize],
    close: () => sequelize.close(),
  });
});

describe('sequelizeBridge', () => {
  const sequelize = new Sequelize(inject('postgres')[17], { dialectModule: pg, logging: false });
  afterAll(() => sequelize.close());

  it('refuses a nested transaction that was still open when the outer one ended', async () => {
    const bridge = sequelizeBridge();
    const outer = await sequelize.transaction();
    const inner = await sequelize.transaction({ transaction: outer });
    expect(bridge.refusalOf?.(inner)).toBeUndefined();
    await outer.commit();
    expect(bridge.refusalOf?.(inner)).toMatch('has ended');
  });
});

describe('The types of sequelizeBridge', () => {
  it('accept a transaction, but no Sequelize instance', () => {
    const store = new PostgresStore(new pg.Pool(), { bridge: sequelizeBridge() });
    expectTypeOf((transaction: Transaction) => store.add(transaction, 'taken')).toBeFunction();
    // @ts-expect-error it commits every query by itself
    expectTypeOf((instance: Sequelize) => store.add(instance, 'refused')).toBeFunction();
  });
});

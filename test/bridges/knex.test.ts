import knex, { type Knex } from 'knex';
import pg from 'pg';
import { afterAll, describe, expect, expectTypeOf, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { knexBridge, type KnexTransaction } from '../../src/bridges/knex.js';
import { bridgeSuite, type Library } from './suite.js';

const FEATURES = { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: true } as const;

bridgeSuite('Knex on pg', FEATURES, (url) => {
  const db = knex({ client: 'pg', connection: url, pool: { max: 5 } });
  return Promise.resolve<Library<Knex.Transaction, KnexTransaction>>({
    bridge: knexBridge(),
    transaction: (work) => db.transaction(work),
    savepoint: (trx, work) => trx.transaction(work),
    insert: (trx, id) => trx('orders').insert({ id }),
    roots: [db, db.withUserParams({ tenant: 'acme' })],
    close: () => db.destroy(),
  });
});

describe('knexBridge', () => {
  const db = knex({ client: 'pg', connection: inject('postgres')[17] });
  afterAll(() => db.destroy());
  const bridge = knexBridge();

  it('refuses a nested transaction that was still open when the outer one ended', async () => {
    const outer = await db.transaction();
    const inner = await outer.transaction();
    expect(bridge.refusalOf?.(inner)).toBeUndefined();
    await outer.commit();
    expect(bridge.refusalOf?.(inner)).toMatch('has ended');
  });

  it('keeps the values out of error messages, where Knex’s bindings would be', async () => {
    const failed = db.transaction(async (trx) => bridge.execute(trx, 'SELECT $1 FROM not_there', ['secret']));
    await expect(failed).rejects.toThrow(/^SELECT \$1 FROM not_there - relation "not_there" does not exist$/);
  });
});

describe('The types of knexBridge', () => {
  it('accept a transaction, but no knex instance', () => {
    const store = new PostgresStore(new pg.Pool(), { bridge: knexBridge() });
    expectTypeOf((transaction: Knex.Transaction) => store.add(transaction, 'taken')).toBeFunction();
    // @ts-expect-error it commits every query by itself
    expectTypeOf((instance: Knex) => store.add(instance, 'refused')).toBeFunction();
  });
});

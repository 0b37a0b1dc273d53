/** ORMs that make the tables of the application out of its entities, and what runs the SQL in their migrations. */
import { EntitySchema, MikroORM } from '@mikro-orm/postgresql';
import knex from 'knex';
import { DataTypes, Sequelize } from 'sequelize';
import { DataSource, EntitySchema as TypeormSchema, EntitySchemaOptions } from 'typeorm';
import { expect, it, onTestFinished } from 'vitest';
import { migrationScript, PostgresStore, type PostgresTableOptions } from 'messenger-outbox/postgres';
import { catalog } from '../support/catalog.js';
import { database, ELSEWHERE, migrated, withMessage } from './support.js';

const places: [string, PostgresTableOptions][] = [
  ['in a schema of its own', {}],
  ['among the tables of the application', ELSEWHERE],
];
const orders = async (pool: Awaited<ReturnType<typeof database>>['pool']) =>
  (await pool.query("SELECT to_regclass('orders')::text AS name")).rows as unknown[];

type SchemaGenerator = NonNullable<Parameters<typeof MikroORM.init>[0]>['schemaGenerator'];

async function mikroOrm(url: string, schemaGenerator: SchemaGenerator = {}) {
  const properties = { id: { type: 'text', primary: true } } as const;
  const order = new EntitySchema<{ id: string }>({ name: 'Order', tableName: 'orders', properties });
  const orm = await MikroORM.init({ clientUrl: url, entities: [order], pool: { min: 0, max: 2 }, schemaGenerator });
  onTestFinished(() => orm.close());
  return orm.schema;
}

const settings: SchemaGenerator[] = [
  { ignoreSchema: ['messenger'] },
  { skipTables: [/^outbox_/], ignoreRoutines: true },
];
it.each(places.map(([where, options], i) => [where, options, settings[i]] as const))(
  'MikroORM would drop an outbox %s, unless it is told not to',
  async (_, options, schemaGenerator) => {
    const { url, pool } = await database();
    const unharmed = await withMessage(pool, options);
    const careless = await mikroOrm(url);
    expect(await careless.getUpdateSchemaSQL()).toMatch(/drop table if exists "(messenger"\.")?(outbox_)?messages"/);
    expect(await careless.getUpdateSchemaSQL({ safe: true })).not.toContain('drop');
    const schema = await mikroOrm(url, schemaGenerator);
    await schema.update();
    expect(await schema.getUpdateSchemaSQL()).toBe('');
    expect(await orders(pool)).toEqual([{ name: 'orders' }]);
    await unharmed();
    await schema.drop();
    expect(await orders(pool)).toEqual([{ name: null }]);
    await unharmed();
  },
);

it.each(places)('synchronize of TypeORM leaves an outbox alone %s', async (_, options) => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool, options);
  const columns = { id: { type: 'text', primary: true } } as const;
  const order = new TypeormSchema(
    Object.assign(new EntitySchemaOptions<{ id: string }>(), { name: 'Order', tableName: 'orders', columns }),
  );
  const source = await new DataSource({ type: 'postgres', url, entities: [order], synchronize: true }).initialize();
  onTestFinished(() => source.destroy());
  expect((await source.driver.createSchemaBuilder().log()).upQueries).toEqual([]);
  expect(await orders(pool)).toEqual([{ name: 'orders' }]);
  await unharmed();
  // `dropSchema`: it empties the schemas of its entities.
  await source.synchronize(true);
  if (options === ELSEWHERE) {
    expect((await catalog(pool, 'public', 'outbox_')).filter((fact) => !fact.startsWith('function'))).toEqual([]);
    // The function is left, and no obstacle.
    expect(await new PostgresStore(pool, options).migrate()).not.toEqual([]);
  } else await unharmed();
});

it.each(places)('sync and drop of Sequelize leave an outbox alone %s', async (_, options) => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool, options);
  const sequelize = new Sequelize(url, { logging: false });
  onTestFinished(() => sequelize.close());
  const id = { type: DataTypes.TEXT, primaryKey: true };
  sequelize.define('Order', { id }, { tableName: 'orders', timestamps: false });
  await sequelize.sync({ alter: true });
  await sequelize.sync({ force: true });
  expect(await orders(pool)).toEqual([{ name: 'orders' }]);
  await sequelize.drop();
  expect(await orders(pool)).toEqual([{ name: null }]);
  await unharmed();
});

/** What runs the text of a file in a migration of each, in a transaction as there. */
const migrations: Record<string, (url: string, file: string) => Promise<unknown>> = {
  Knex: async (url, file) => {
    const db = knex({ client: 'pg', connection: url });
    onTestFinished(() => db.destroy());
    const migration = { up: (trx: typeof db) => trx.raw(file), down: () => Promise.resolve() };
    const migrationSource = {
      getMigrations: () => Promise.resolve(['outbox']),
      getMigrationName: (name: string) => name,
      getMigration: () => Promise.resolve(migration),
    };
    await db.migrate.latest({ migrationSource });
  },
  MikroORM: async (url, file) => {
    const orm = await MikroORM.init({ clientUrl: url, entities: [], discovery: { warnWhenNoEntities: false } });
    onTestFinished(() => orm.close());
    await orm.em.transactional((em) => em.execute(file));
  },
  TypeORM: async (url, file) => {
    class Outbox1769817600000 {
      up = (runner: { query(sql: string): Promise<unknown> }) => runner.query(file);
      down = () => Promise.resolve();
    }
    const source = new DataSource({ type: 'postgres', url, migrations: [Outbox1769817600000], migrationsRun: true });
    await source.initialize();
    await source.destroy();
  },
  Sequelize: async (url, file) => {
    const sequelize = new Sequelize(url, { logging: false });
    onTestFinished(() => sequelize.close());
    await sequelize.transaction((transaction) => sequelize.getQueryInterface().sequelize.query(file, { transaction }));
  },
};

it.each(Object.entries(migrations))('a migration of %s makes the same as migrate()', async (_, apply) => {
  const { url, pool } = await database();
  await apply(url, await migrationScript({ transaction: false }));
  expect(await catalog(pool, 'messenger')).toEqual(await migrated());
  await (
    await withMessage(pool)
  )();
});

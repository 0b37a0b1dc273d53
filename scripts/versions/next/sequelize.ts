import { Sequelize } from '@sequelize/core';
import { PostgresDialect } from '@sequelize/postgres';
import { PostgresStore } from 'messenger-outbox/postgres';
import { sequelizeBridge } from 'messenger-outbox/sequelize';
import pg from 'pg';
import { roundTrip, url } from '../round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const sequelize = new Sequelize({ dialect: PostgresDialect, url, logging: false });
const store = new PostgresStore(pool, { bridge: sequelizeBridge() });
await roundTrip(store, {
  writes: (text, end) =>
    sequelize.transaction(async (transaction) => {
      await sequelize.transaction({ transaction }, (inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(sequelize, 'never'),
});
await sequelize.close();
await pool.end();

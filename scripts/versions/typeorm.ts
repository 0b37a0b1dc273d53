import 'reflect-metadata';
import { PostgresStore } from 'messenger-outbox/postgres';
import { typeormBridge } from 'messenger-outbox/typeorm';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { roundTrip, url } from './round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const dataSource = await new DataSource({ type: 'postgres', url }).initialize();
const store = new PostgresStore(pool, { bridge: typeormBridge() });
await roundTrip(store, {
  writes: (text, end) =>
    dataSource.transaction(async (manager) => {
      await manager.transaction((inner) => store.add(inner, text));
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(dataSource, 'never'),
});
await dataSource.destroy();
await pool.end();

import { PrismaPg } from '@prisma/adapter-pg';
import { PostgresStore } from 'messenger-outbox/postgres';
import { prismaBridge } from 'messenger-outbox/prisma';
import pg from 'pg';
import { PrismaClient } from '../../examples/prisma/generated/client.js';
import { roundTrip, url } from './round-trip.js';

const pool = new pg.Pool({ connectionString: url });
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
const store = new PostgresStore(pool, { bridge: prismaBridge() });
await roundTrip(store, {
  writes: (text, end) =>
    prisma.$transaction(async (tx) => {
      await store.add(tx, text);
      end();
    }),
  // @ts-expect-error it commits every query by itself
  mistake: () => store.add(prisma, 'never'),
});
await prisma.$disconnect();
await pool.end();

import { randomUUID } from 'node:crypto';
import pg from 'pg';
import {
  createReplicationSemaphoreConcurrencyController,
  DatabaseSetup,
  getDisabledLogger,
  initializeMessageStorage,
  initializeReplicationMessageListener,
} from 'pg-transactional-outbox';
import { inBatches, jsonOf, type Peer } from './peer.js';

const tables = { outboxOrInbox: 'outbox', schema: 'public', table: 'outbox', listenerRole: 'postgres' } as const;
const replication = { publication: 'bench_publication', replicationSlot: 'bench_slot' };
/** As many as the handlers' pool has connections, by default and here. */
const PARALLEL = 10;
const logger = getDisabledLogger();

const configOf = (url: string) =>
  ({
    outboxOrInbox: 'outbox',
    dbListenerConfig: { connectionString: url },
    dbHandlerConfig: { connectionString: url, max: PARALLEL } as pg.PoolConfig,
    settings: {
      dbSchema: tables.schema,
      dbTable: tables.table,
      dbPublication: replication.publication,
      dbReplicationSlot: replication.replicationSlot,
      enableMaxAttemptsProtection: false,
      enablePoisonousMessageProtection: false,
      messageCleanupIntervalInMs: 0,
    },
  }) as const;

/**
 * The replication listener, without the two protections that its README leaves off for an outbox (each is
 * a transaction more per message), and messages handled side by side. Each is a transaction of four
 * statements all the same. Its polling listener is slower, the more so the more messages wait: a poll looks
 * at all of them.
 */
export const pgTransactionalOutbox: Peer = {
  name: 'pg-transactional-outbox',
  oneOf: 10,

  async prepare(url, messages, bytes) {
    const payload = jsonOf(bytes);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const setup = { ...tables, ...replication, database: client.database! };
    await client.query(DatabaseSetup.dropAndCreateTable(setup));
    await client.query(DatabaseSetup.setupReplicationCore(setup));
    for (const statement of DatabaseSetup.setupReplicationSlot(setup).split(';')) await client.query(statement);
    const store = initializeMessageStorage(configOf(url), logger);
    await inBatches(messages, async (length, from) => {
      await client.query('BEGIN');
      for (let i = from; i < from + length; i++) {
        const message = {
          id: randomUUID(),
          aggregateType: 'bench',
          aggregateId: String(i % 1000),
          messageType: 'bench',
        };
        await store({ ...message, payload, createdAt: new Date().toISOString() }, client);
      }
      await client.query('COMMIT');
    });
    await client.query('VACUUM ANALYZE');
    await client.end();
  },

  async drain(url, messages, handled) {
    let shutdown: (() => Promise<void>) | undefined;
    await new Promise<void>((resolve) => {
      let count = 0;
      const handle = () => {
        handled(1);
        count += 1;
        if (count === messages) resolve();
        return Promise.resolve();
      };
      [shutdown] = initializeReplicationMessageListener(configOf(url), { handle }, logger, {
        concurrencyStrategy: createReplicationSemaphoreConcurrencyController(PARALLEL),
      });
    });
    await shutdown?.();
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query(`SELECT pg_drop_replication_slot('${replication.replicationSlot}')`);
    await client.end();
  },
};

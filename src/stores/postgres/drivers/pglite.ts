import { MessengerError } from '../../../core/errors.js';
import { hasMethods } from '../../../core/util/options.js';
import { bounded, type Connection, type Database, type Row } from '../sql/database.js';
import { BYTEA, bytesOf, TEXT, type Driver } from './driver.js';

/** The part of PGlite's Transaction that the store uses. */
export interface PGliteTransaction {
  query(
    text: string,
    values?: unknown[],
    options?: {
      rowMode?: 'array';
      parsers?: Record<number, (value: string) => unknown>;
      serializers?: Record<number, (value: unknown) => string>;
    },
  ): Promise<{ rows: unknown[] }>;
  exec(text: string): Promise<unknown>;
  /** A PGlite database does not have this method. */
  rollback(): Promise<void>;
  readonly closed: boolean;
}

/** The part of PGlite that the store uses. */
export interface PGliteClient {
  /** Older types of PGlite include `undefined`, for work that rolled the transaction back. */
  transaction<T>(work: (transaction: PGliteTransaction) => Promise<T>): Promise<T | undefined>;
  query(text: string, values?: unknown[]): Promise<unknown>;
  exec(text: string, options?: { onNotice?: (notice: { message: string | undefined }) => void }): Promise<unknown>;
  readonly closed: boolean;
}

function isClient(client: unknown): client is PGliteClient {
  return (
    typeof client === 'object' &&
    hasMethods(client, 'transaction', 'query', 'exec') &&
    typeof (client as PGliteClient).closed === 'boolean'
  );
}

function isTransaction(handle: unknown): handle is PGliteTransaction {
  return (
    typeof handle === 'object' && hasMethods(handle, 'query', 'exec', 'rollback') && !hasMethods(handle, 'transaction')
  );
}

/** We use our own parsers, because an application can set different ones when it opens the database. */
const parsers = { [BYTEA]: bytesOf, [TEXT]: (value: string) => value };
/**
 * We use our own serializers for the types of all values in our statements: text, smallint, bigint, integer, oid,
 * double precision.
 */
const serializers = Object.fromEntries([TEXT, 21, 20, 23, 26, 701].map((type) => [type, String]));
const options = { rowMode: 'array', parsers, serializers } as const;

function connection(transaction: PGliteTransaction): Connection {
  return {
    async query(statement, values = []) {
      const result = await transaction.query(statement.text, [...values], options);
      return result.rows as Row[];
    },
  };
}

const IN_TRANSACTION = 'messenger: a transaction is open';

/**
 * Detects a transaction that somebody began by hand and did not end (see migration 7). PGlite has only one connection,
 * so its `transaction` method would join that transaction and commit it.
 */
const PROBE = `DO $$
DECLARE
  at_commit text;
  at_rollback text;
  exits text := pg_catalog.current_setting('exit_on_error');
BEGIN
  PERFORM pg_catalog.set_config('exit_on_error', 'off', true);
  BEGIN COMMIT; EXCEPTION WHEN invalid_transaction_termination THEN at_commit := SQLERRM; END;
  BEGIN ROLLBACK; EXCEPTION WHEN invalid_transaction_termination THEN at_rollback := SQLERRM; END;
  PERFORM pg_catalog.set_config('exit_on_error', exits, true);
  IF at_commit OPERATOR(pg_catalog.=) at_rollback THEN RAISE INFO '${IN_TRANSACTION}'; END IF;
END $$`;

async function assertIdle(client: PGliteClient): Promise<void> {
  const notices: unknown[] = [];
  await client.exec(PROBE, {
    onNotice: ({ message }) => {
      notices.push(message);
    },
  });
  if (!notices.includes(IN_TRANSACTION)) return;
  throw new MessengerError(
    'INVALID_TRANSACTION',
    'a transaction was begun by hand on this PGlite database, and other transactions would end it: use db.transaction, which makes the other transactions wait',
  );
}

function database(client: PGliteClient): Database {
  const run = async <T>(preamble: string, work: (connection: Connection) => Promise<T>): Promise<T> => {
    await assertIdle(client);
    return (await client.transaction(async (transaction) => {
      await transaction.exec(`SET TRANSACTION ISOLATION LEVEL READ COMMITTED; ${preamble}`);
      return work(connection(transaction));
    })) as T;
  };
  return {
    transaction: (preamble, work, bounds) => bounded(run(preamble, work), bounds, 'PGlite'),
    once(preamble, statement, values, bounds) {
      return this.transaction(preamble, (handle) => handle.query(statement, values), bounds);
    },
  };
}

/** The driver for PGlite. The store takes the database. A handle is the transaction from `db.transaction`. */
export const pgliteDriver: Driver = {
  name: 'PGlite',
  database: (client) => (isClient(client) ? database(client) : undefined),
  handle(handle) {
    if (isClient(handle)) {
      return {
        refused: 'a PGlite database commits every query by itself: pass the transaction that db.transaction gives you',
      };
    }
    if (!isTransaction(handle)) return undefined;
    if (handle.closed)
      return { refused: 'this PGlite transaction has ended: store before the callback of db.transaction returns' };
    return (text, values) => handle.query(text, [...values], options);
  },
  onEnd(handle, callback) {
    // Call back at once. PGlite runs one transaction at a time, so a relay's next poll runs after this transaction
    // anyway.
    if (isTransaction(handle)) callback();
  },
};

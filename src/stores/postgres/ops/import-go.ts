import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import { checkKeys, type KeysOf } from '../../../core/util/options.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { conflict, orConflict, transact, type OperationContext } from '../sql/transact.js';
import type { Connection, Value } from '../sql/database.js';
import { LONGEST_KEY } from '../write/encode.js';
import { literal, quote } from '../sql/names.js';
import { statement } from '../sql/statement.js';

/** The options of `importFromGo`: the Go module's table, and the metadata keys for the topic and the key. */
export interface ImportFromGoOptions extends StoreCallOptions {
  /** The schema of the table. @default 'public' */
  readonly schema?: string | undefined;
  /** The name of the table. @default 'messages' */
  readonly table?: string | undefined;
  /**
   * The metadata key whose value becomes the message's key. Use the metadata key from which the Go module's broker took
   * the message group. @default none
   */
  readonly key?: string | undefined;
  /** The metadata key whose value becomes the message's topic. @default none */
  readonly topic?: string | undefined;
}

const INVALID_TEXT = '22P02';

/** The longest time that writers wait while this call waits for the table. In milliseconds. */
const LOCK_TIMEOUT = 5_000;

/** For each type of the Go module's payload column, the SQL that converts it to bytes and to JSON. */
const PAYLOADS: Readonly<Record<string, { readonly bytes: string; readonly json: string }>> = {
  text: { bytes: `convert_to(t.payload, 'UTF8')`, json: 't.payload::json' },
  jsonb: { bytes: `convert_to(t.payload::text, 'UTF8')`, json: 't.payload::text::json' },
  json: { bytes: `convert_to(t.payload::text, 'UTF8')`, json: 't.payload' },
  bytea: { bytes: 't.payload', json: `convert_from(t.payload, 'UTF8')::json` },
};

/**
 * Moves the unpublished messages from the Go module's table into the log, in one transaction, and marks them published
 * there. They keep the order in which the module would have published them. A second run imports only the messages that
 * the Go module's writers have stored since the first run. The Go module's relay must be stopped. Messages that the
 * relay has already published stay in the table.
 *
 * @returns how many messages were imported.
 * @throws MessengerError `SCHEMA_MISMATCH` if the table is not the Go module's; `CONFLICT` if a transaction keeps the
 *   table locked, if a row cannot become a message, or if its key is too long. The error names some of these rows.
 */
export async function importFromGo(context: OperationContext, options: ImportFromGoOptions = {}): Promise<number> {
  checkKeys(options, {
    schema: true,
    table: true,
    key: true,
    topic: true,
    signal: true,
  } satisfies KeysOf<ImportFromGoOptions>);
  const { schema = 'public', table = 'messages' } = options;
  for (const [name, value] of Object.entries({ schema, table, key: options.key ?? 'x', topic: options.topic ?? 'x' })) {
    if (typeof (value as unknown) === 'string' && value !== '' && !value.includes('\u0000')) continue;
    throw new MessengerError('INVALID_OPTION', `${name} must be a non-empty string, got ${describe(value)}`);
  }
  const source = `${quote(schema)}.${quote(table)}`;
  const take = async (connection: Connection) => {
    const { created, payload } = await shapeOf(connection, source);
    // Wait for transactions that are storing messages in the table, and make later ones wait. The import then takes
    // either all messages of a transaction or none.
    await orConflict(
      connection.query(statement('adopt_lock', `LOCK TABLE ${source} IN SHARE ROW EXCLUSIVE MODE`)),
      `an open transaction has kept ${source} locked for ${String(LOCK_TIMEOUT / 1000)} seconds: try again when that transaction has ended`,
    );
    const metadata = `CASE jsonb_typeof(t.metadata::jsonb) WHEN 'object' THEN t.metadata::jsonb WHEN 'null' THEN '{}' END`;
    await assertAdoptable(connection, source, { metadata, created, key: options.key });
    const converted = payload[context.jsonPayload ? 'json' : 'bytes'];
    const taking = connection.query(
      statement(
        'adopt',
        `WITH taken AS (
  UPDATE ${source} t SET published = TRUE WHERE t.published IS NOT TRUE
  RETURNING t.id AS original, ${metadata} AS metadata, ${converted} AS payload, t.${created}::timestamptz AS at
), stored AS (
  INSERT INTO ${context.names.messages} (id, topic, key, metadata, payload, at)
  SELECT original::text, nullif(metadata ->> $1::text, ''), nullif(metadata ->> $2::text, ''), metadata, payload, at
  FROM taken ORDER BY at, original RETURNING id
)
SELECT count(*)::text FROM stored`,
      ),
      [options.topic ?? null, options.key ?? null],
    );
    const [row] = await taking.catch((cause: unknown) => {
      if ((cause as { code?: unknown }).code !== INVALID_TEXT) throw cause;
      throw conflict(
        `a payload of ${source} is not JSON, which the jsonPayload option requires: nothing was imported`,
        cause,
      );
    });
    return Number(row?.[0]);
  };
  return transact(context, options, take, {
    settings: [`SET LOCAL lock_timeout = ${String(LOCK_TIMEOUT)}`],
    patience: 10,
  });
}

/** Finds the columns that differ between versions of the module's table. */
async function shapeOf(connection: Connection, source: string) {
  const rows = await connection.query(
    statement(
      'adopt_columns',
      `SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = to_regclass(${literal(source)}) AND attnum > 0 AND NOT attisdropped`,
    ),
  );
  if (rows.length === 0) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `there is no table ${source}: name it with the schema and table options`,
    );
  }
  const types = new Map(rows.map(([name, type]) => [name as string, type as string]));
  const created = ['created_at', 'at'].find((name) => types.get(name)?.startsWith('timestamp'));
  const payload = PAYLOADS[types.get('payload') ?? ''];
  const isItsTable =
    types.has('id') && types.get('published') === 'boolean' && /^jsonb?$/.test(types.get('metadata') ?? '');
  if (created === undefined || payload === undefined || !isItsTable) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `${source} is not the table of the Go module messenger, which has id, metadata (jsonb), payload (text or jsonb), published (boolean) and created_at`,
    );
  }
  return { created, payload };
}

async function assertAdoptable(
  connection: Connection,
  source: string,
  { metadata, created, key }: { metadata: string; created: string; key: string | undefined },
): Promise<void> {
  const unfit = `t.payload IS NULL OR t.payload::text IN ('', '\\x') OR ${metadata} IS NULL
    OR EXISTS (SELECT FROM jsonb_each(${metadata}) m WHERE jsonb_typeof(m.value) <> 'string')`;
  const assertNone = async (what: string, found: string, where: string, values: readonly Value[] = []) => {
    const text = `SELECT t.id::text FROM ${source} t WHERE t.published IS NOT TRUE AND (${where}) ORDER BY t.${created}, t.id LIMIT 5`;
    const rows = await connection.query(statement(what, text), values);
    if (rows.length === 0) return;
    throw conflict(
      `messages of ${source} ${found} cannot be imported: correct them, or mark them published. The first are ${rows.map(([id]) => id as string).join(', ')}`,
    );
  };
  await assertNone('adopt_unfit', 'without a payload, or whose metadata are not strings,', unfit);
  if (key === undefined) return;
  const most = String(LONGEST_KEY);
  const isLong = `octet_length(${metadata} ->> $1::text) > ${most}`;
  await assertNone('adopt_long', `whose key, ${JSON.stringify(key)}, has more than ${most} bytes,`, isLong, [key]);
}

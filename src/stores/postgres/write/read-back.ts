import { textAfter } from './marked.js';
import type { Names } from '../sql/names.js';
import { MESSAGE, messageColumns, StoredMessage } from '../sql/stored-message.js';

const MARK = 'messenger-stored:';

/** Returns SQL that selects the messages that the current transaction has stored, as one string. */
export function storedText({ messages }: Names, jsonPayload: boolean): string {
  const payload = jsonPayload ? 'm.payload' : "encode(m.payload, 'base64')";
  const fields = { id: 'm.id', topic: 'm.topic', key: 'm.key', metadata: 'm.metadata', payload };
  const columns = MESSAGE.list(messageColumns('m', jsonPayload, fields));
  return `SELECT '${MARK}' || coalesce(json_agg(json_build_array(${columns}) ORDER BY m.seq), '[]')::text AS stored
  FROM ${messages} m WHERE m.xid = pg_current_xact_id_if_assigned()`;
}

/**
 * Decodes the messages from a library's result for that SQL.
 * @throws MessengerError `UNSUPPORTED` if the library returns no rows.
 */
export function decodeStored(result: unknown, jsonPayload: boolean): StoredMessage[] {
  const rows = JSON.parse(textAfter(MARK, result)) as (string | null)[][];
  return rows.map((row) => {
    const payload = Buffer.from(row[MESSAGE.at.payload] ?? '', jsonPayload ? 'utf8' : 'base64');
    return new StoredMessage((row as unknown[]).with(MESSAGE.at.payload, payload));
  });
}

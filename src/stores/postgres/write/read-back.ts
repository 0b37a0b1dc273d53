import { textAfter } from './marked.js';
import type { Names } from '../sql/names.js';
import { StoredMessage } from '../sql/stored-message.js';
import { epoch, instant } from '../sql/statement.js';

const MARK = 'messenger-stored:';

/** Returns, as one text, what the transaction it runs in has stored so far. */
export function storedText({ messages }: Names, jsonPayload: boolean): string {
  const payload = jsonPayload ? 'm.payload::text' : "encode(m.payload, 'base64')";
  return `SELECT '${MARK}' || coalesce(json_agg(json_build_array(m.seq::text, m.id, m.topic, m.key, m.metadata::text, ${payload},
    ${instant('m.at')}, CASE WHEN m.deliver_at IS NOT NULL
      THEN concat_ws(' ', ${epoch('m.deliver_at')}, m.hold_key, m.deliver_at > clock_timestamp()) END) ORDER BY m.seq), '[]')::text AS stored
  FROM ${messages} m WHERE m.xid = pg_current_xact_id_if_assigned()`;
}

/** The messages of what a library resolved to. @throws MessengerError `UNSUPPORTED` where it gives no rows. */
export function decodeStored(result: unknown, jsonPayload: boolean): StoredMessage[] {
  const rows = JSON.parse(textAfter(MARK, result)) as (string | null)[][];
  return rows.map((row) => {
    const payload = Buffer.from(row[5] ?? '', jsonPayload ? 'utf8' : 'base64');
    return new StoredMessage(row.with(5, payload as never));
  });
}

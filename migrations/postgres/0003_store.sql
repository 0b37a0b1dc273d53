-- Storing as a function: its plan is kept by the session, where that of a statement is made anew by each transaction
-- of a client that does not prepare, and was half of what storing one message cost the server.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- Stores messages, given as a JSON array, and returns how many. A default's volatile functions are called per row, in
-- the order of the columns, and a record set keeps the order of its array.
--
-- A writer notifies nobody but relays that sleep: these hold the lock of a slot exclusively, so that it can not be
-- shared here. Where `lock` is null it notifies nobody. The condition is true for every row: it is there for what it
-- does. It hashes a key as key_hash is generated, since nothing that was written may be read here; and has no
-- backslash in a string, which means another thing in sessions without standard_conforming_strings.
CREATE OR REPLACE FUNCTION {store}(messages text, payloads text, lock integer, partitions integer, slots integer, channel text)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS '
DECLARE
  stored integer;
BEGIN
  IF payloads <> ''{payload_type}'' THEN
    RAISE datatype_mismatch USING MESSAGE = ''payloads are of type {payload_type}'';
  END IF;
  INSERT INTO {''messages''} (id, topic, key, metadata, payload, at, deliver_at, hold_key)
    SELECT m.id, m.topic, m.key, m.metadata, {payload}, m.at, m."deliverAt", coalesce(m."holdKey", false)
    FROM json_to_recordset($1::json) AS m
      (id text, topic text, key text, metadata jsonb, payload text, at timestamptz, "deliverAt" timestamptz, "holdKey" boolean)
    CROSS JOIN LATERAL (SELECT
      (''x'' || left(encode(sha256(decode(replace(coalesce(m.key, m.id), chr(92), chr(92) || chr(92)), ''escape'')), ''hex''), 4))::bit(16)::integer
        % $4 % $5 AS slot) s
    WHERE CASE WHEN $3 IS NULL OR pg_try_advisory_xact_lock_shared($3, s.slot) THEN true
      ELSE coalesce(pg_notify($6, s.slot::text)::text, '''') IS NOT NULL END;
  GET DIAGNOSTICS stored = ROW_COUNT;
  RETURN stored;
END';

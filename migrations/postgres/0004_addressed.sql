-- Messages that are for one destination alone, whatever topics it and others take.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- Null: for every destination that takes its topic.
ALTER TABLE {messages} ADD COLUMN destination text;

-- Of no meaning: whoever may update it may lock a row, so that nobody removes the destination.
ALTER TABLE {destinations} ADD COLUMN guard smallint;

-- As the function of migration 3, for messages of which some have a destination: it must be there, and stay until the
-- transaction ends, since what nobody publishes nobody would miss, and it would be cleaned away. A function of its
-- own: whoever stores without one needs no right that it had not before.
CREATE OR REPLACE FUNCTION {store_addressed}(messages text, payloads text, lock integer, partitions integer, slots integer, channel text)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS '
DECLARE
  stored integer;
  missing text;
  names text[];
BEGIN
  IF payloads <> ''{payload_type}'' THEN
    RAISE datatype_mismatch USING MESSAGE = ''payloads are of type {payload_type}'';
  END IF;
  names := ARRAY(SELECT DISTINCT m.destination FROM json_to_recordset($1::json) AS m (destination text) WHERE m.destination IS NOT NULL);
  PERFORM FROM {''destinations''} d WHERE d.name = ANY(names) ORDER BY d.name FOR KEY SHARE;
  SELECT n INTO missing FROM unnest(names) AS n
    WHERE NOT EXISTS (SELECT FROM {''destinations''} d WHERE d.name = n AND d.forgotten_at IS NULL) LIMIT 1;
  IF missing IS NOT NULL THEN
    RAISE SQLSTATE ''MO001'' USING MESSAGE = CASE WHEN EXISTS (SELECT FROM {''destinations''} d WHERE d.name = missing)
      THEN ''destination '' || to_json(missing)::text || '' was forgotten, and has to be removed and made anew''
      ELSE ''there is no destination '' || to_json(missing)::text END;
  END IF;
  INSERT INTO {''messages''} (id, topic, key, metadata, payload, at, deliver_at, hold_key, destination)
    SELECT m.id, m.topic, m.key, m.metadata, {payload}, m.at, m."deliverAt", coalesce(m."holdKey", false), m.destination
    FROM json_to_recordset($1::json) AS m
      (id text, topic text, key text, metadata jsonb, payload text, at timestamptz, "deliverAt" timestamptz, "holdKey" boolean, destination text)
    CROSS JOIN LATERAL (SELECT
      (''x'' || left(encode(sha256(decode(replace(coalesce(m.key, m.id), chr(92), chr(92) || chr(92)), ''escape'')), ''hex''), 4))::bit(16)::integer
        % $4 % $5 AS slot) s
    WHERE CASE WHEN $3 IS NULL OR pg_try_advisory_xact_lock_shared($3, s.slot) THEN true
      ELSE coalesce(pg_notify($6, s.slot::text)::text, '''') IS NOT NULL END;
  GET DIAGNOSTICS stored = ROW_COUNT;
  RETURN stored;
END';

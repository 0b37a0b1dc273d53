-- The procedure of migration 10, for clients that know, as they send the call, that they are in a transaction: `expected` is
-- null. It does not try then whether it is in one, and names none, which takes 10 us of the 400 of a transaction that stores
-- one message and does nothing else.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.
CREATE OR REPLACE PROCEDURE {store_in_transaction}(
  messages text, payloads text, lock integer, partitions integer, slots integer, channel text, addressed boolean, expected text,
  INOUT transaction text
) LANGUAGE plpgsql AS '
DECLARE
  at_commit pg_catalog.text;
  outside boolean;
  exits boolean;
BEGIN
  IF expected OPERATOR(pg_catalog.<>) '''' OR payloads OPERATOR(pg_catalog.<>) ''{payload_type}''
    OR pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.<>) ''UTF8'' THEN
    IF expected OPERATOR(pg_catalog.<>) '''' THEN
      transaction := pg_catalog.concat(''messenger-transaction:'', pg_catalog.pg_current_xact_id_if_assigned());
      IF expected OPERATOR(pg_catalog.<>) transaction THEN
        RETURN;
      END IF;
    END IF;
    IF payloads OPERATOR(pg_catalog.<>) ''{payload_type}'' THEN
      RAISE datatype_mismatch USING MESSAGE = ''payloads are of type {payload_type}'';
    END IF;
    IF pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.<>) ''UTF8'' AND NOT (pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) ''SQL_ASCII''
      AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY (''{UTF8,SQL_ASCII}''::pg_catalog.name[])) THEN
      RAISE SQLSTATE ''MO003'' USING MESSAGE = pg_catalog.concat(''client_encoding is '', pg_catalog.pg_client_encoding());
    END IF;
  END IF;
  IF expected IS NOT NULL AND pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN
    exits := pg_catalog.current_setting(''exit_on_error'') OPERATOR(pg_catalog.<>) ''off'';
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''off'', true);
    END IF;
    BEGIN
      COMMIT;
    EXCEPTION WHEN invalid_transaction_termination THEN
      IF SQLERRM OPERATOR(pg_catalog.<>) ''invalid transaction termination'' THEN
        at_commit := SQLERRM;
        BEGIN
          ROLLBACK;
        EXCEPTION WHEN invalid_transaction_termination THEN
          outside := SQLERRM OPERATOR(pg_catalog.<>) at_commit;
        END;
      END IF;
    END;
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''on'', true);
    END IF;
    IF outside THEN
      RAISE SQLSTATE ''MO002'' USING MESSAGE = ''the transaction is over, or has not begun'';
    END IF;
  END IF;
  IF addressed THEN
    PERFORM {''store_addressed''}(messages, payloads, lock, partitions, slots, channel);
  ELSE
    INSERT INTO {''messages''} (id, topic, key, metadata, payload, at, deliver_at, hold_key)
      SELECT m.id, m.topic, m.key, m.metadata, {payload}, m.at, m."deliverAt", coalesce(m."holdKey", false)
      FROM pg_catalog.json_to_recordset($1::pg_catalog.json) AS m
        (id pg_catalog.text, topic pg_catalog.text, key pg_catalog.text, metadata pg_catalog.jsonb, payload pg_catalog.text,
          at pg_catalog.timestamptz, "deliverAt" pg_catalog.timestamptz, "holdKey" boolean)
      CROSS JOIN LATERAL (SELECT
        (''x'' OPERATOR(pg_catalog.||) pg_catalog."left"(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(
          coalesce(m.key, m.id), pg_catalog.chr(92), pg_catalog.chr(92) OPERATOR(pg_catalog.||) pg_catalog.chr(92)), ''escape'')), ''hex''), 4)
        )::bit(16)::integer OPERATOR(pg_catalog.%) $4 OPERATOR(pg_catalog.%) $5 AS slot) s
      WHERE CASE WHEN $3 IS NULL OR pg_catalog.pg_try_advisory_xact_lock_shared($3, s.slot) THEN true
        ELSE coalesce(pg_catalog.pg_notify($6, s.slot::pg_catalog.text)::pg_catalog.text, '''') IS NOT NULL END;
  END IF;
  IF expected IS NOT NULL THEN
    transaction := pg_catalog.concat(''messenger-transaction:'', pg_catalog.pg_current_xact_id());
  END IF;
END';

-- Storing and receiving through the handle of an application, which says that it stands in a transaction. Whether it
-- does, the server decides, where the row is inserted: what a client knows is the server's last answer, while a
-- ROLLBACK may be on its way already, and what is stored after that would commit by itself.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- As that of migration 3, with qualified names in place of a search path: to set one cost each call a twentieth.
CREATE OR REPLACE FUNCTION {store}(messages text, payloads text, lock integer, partitions integer, slots integer, channel text)
RETURNS integer LANGUAGE plpgsql AS '
DECLARE
  stored integer;
BEGIN
  IF payloads OPERATOR(pg_catalog.<>) ''{payload_type}'' THEN
    RAISE datatype_mismatch USING MESSAGE = ''payloads are of type {payload_type}'';
  END IF;
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
  GET DIAGNOSTICS stored = ROW_COUNT;
  RETURN stored;
END';

-- A procedure that is called outside of a transaction may end one, and inside may not. Both are tried where a
-- subtransaction forbids both anyhow, so that nothing ends: inside of a transaction the two errors are the same text,
-- in whatever language, and outside each names what it forbids. Where the first is the text of inside in English, the
-- second is not tried: each costs a transaction a fiftieth. There is nothing to try where the transaction has an
-- id already, as it has after any write: one statement by itself does not begin with one. With `exit_on_error`, each of
-- the two errors would end the session.
--
-- Neither procedure has a search path of its own, with which it could end no transaction: hence the qualified names.
--
-- Clients of JavaScript send UTF-8. Where the session says that they send another encoding, texts would be altered.
--
-- `expected` is what an earlier call returned for the same handle, or empty. A handle whose transaction is over must not
-- write into the next one of its connection, and must not fail it either: then nothing is stored, and what is returned
-- says which transaction this is.
CREATE OR REPLACE PROCEDURE {store_in_transaction}(
  messages text, payloads text, lock integer, partitions integer, slots integer, channel text, addressed boolean, expected text,
  INOUT transaction text
) LANGUAGE plpgsql AS '
DECLARE
  at_commit pg_catalog.text;
  at_rollback pg_catalog.text;
  exits boolean := pg_catalog.current_setting(''exit_on_error'');
BEGIN
  IF expected OPERATOR(pg_catalog.<>) '''' THEN
    transaction := pg_catalog.concat(''messenger-transaction:'', pg_catalog.pg_current_xact_id_if_assigned());
    IF expected OPERATOR(pg_catalog.<>) transaction THEN
      RETURN;
    END IF;
  END IF;
  IF pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.<>) ''UTF8'' AND NOT (pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) ''SQL_ASCII''
    AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY (''{UTF8,SQL_ASCII}''::pg_catalog.name[])) THEN
    RAISE SQLSTATE ''MO003'' USING MESSAGE = pg_catalog.concat(''client_encoding is '', pg_catalog.pg_client_encoding());
  END IF;
  IF pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''off'', true);
    END IF;
    BEGIN COMMIT; EXCEPTION WHEN invalid_transaction_termination THEN at_commit := SQLERRM; END;
    IF at_commit OPERATOR(pg_catalog.<>) ''invalid transaction termination'' THEN
      BEGIN ROLLBACK; EXCEPTION WHEN invalid_transaction_termination THEN at_rollback := SQLERRM; END;
    END IF;
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''on'', true);
    END IF;
    IF at_commit OPERATOR(pg_catalog.<>) at_rollback THEN
      RAISE SQLSTATE ''MO002'' USING MESSAGE = ''the transaction is over, or has not begun'';
    END IF;
  END IF;
  IF addressed THEN
    PERFORM {''store_addressed''}(messages, payloads, lock, partitions, slots, channel);
  ELSE
    PERFORM {''store''}(messages, payloads, lock, partitions, slots, channel);
  END IF;
  transaction := pg_catalog.concat(''messenger-transaction:'', pg_catalog.pg_current_xact_id());
END';

CREATE OR REPLACE PROCEDURE {receive_in_transaction}(consumer text, id text, INOUT received text) LANGUAGE plpgsql AS '
DECLARE
  at_commit pg_catalog.text;
  at_rollback pg_catalog.text;
  exits boolean := pg_catalog.current_setting(''exit_on_error'');
  rows integer;
BEGIN
  IF pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.<>) ''UTF8'' AND NOT (pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) ''SQL_ASCII''
    AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY (''{UTF8,SQL_ASCII}''::pg_catalog.name[])) THEN
    RAISE SQLSTATE ''MO003'' USING MESSAGE = pg_catalog.concat(''client_encoding is '', pg_catalog.pg_client_encoding());
  END IF;
  IF pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''off'', true);
    END IF;
    BEGIN COMMIT; EXCEPTION WHEN invalid_transaction_termination THEN at_commit := SQLERRM; END;
    IF at_commit OPERATOR(pg_catalog.<>) ''invalid transaction termination'' THEN
      BEGIN ROLLBACK; EXCEPTION WHEN invalid_transaction_termination THEN at_rollback := SQLERRM; END;
    END IF;
    IF exits THEN
      PERFORM pg_catalog.set_config(''exit_on_error'', ''on'', true);
    END IF;
    IF at_commit OPERATOR(pg_catalog.<>) at_rollback THEN
      RAISE SQLSTATE ''MO002'' USING MESSAGE = ''the transaction is over, or has not begun'';
    END IF;
  END IF;
  INSERT INTO {''inbox''} (consumer, id) VALUES ($1, $2) ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS rows = ROW_COUNT;
  received := pg_catalog.concat(''messenger-inbox:'', rows);
END';

-- The outbox: a log that is only ever inserted into, cursors over it, and a side table for what failed.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- The log. Two rules of order carry the promises (`messenger migrate` and every relay check them):
--   * xid stands before seq, so that a row's seq is drawn after its transaction has its xid;
--   * seq is drawn from a sequence without a cache, and can not be given by a writer.
CREATE TABLE {messages} (
  xid       xid8        NOT NULL DEFAULT pg_current_xact_id(),
  seq       bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
  stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The first 16 bits of SHA-256 over the bytes of the key (of the id where there is no key): the same
  -- in every language and version of the server. A message's partition is key_hash % partitions.
  key_hash  integer     GENERATED ALWAYS AS (
    ('x' || left(encode(sha256(decode(replace(coalesce(key, id), '\', '\\'), 'escape')), 'hex'), 4))::bit(16)::integer
  ) STORED,
  slice     smallint    NOT NULL DEFAULT (floor(date_part('epoch', clock_timestamp()) / {slice_seconds})::bigint % 8)::smallint,
  id        text        NOT NULL,
  topic     text,
  key       text,
  metadata  jsonb       NOT NULL DEFAULT '{}',
  payload   {payload_type} NOT NULL
) PARTITION BY LIST (slice);

-- The ring of slices: cleaning truncates a slice, and never deletes a row.
CREATE TABLE {messages_0} PARTITION OF {messages} FOR VALUES IN (0);
CREATE TABLE {messages_1} PARTITION OF {messages} FOR VALUES IN (1);
CREATE TABLE {messages_2} PARTITION OF {messages} FOR VALUES IN (2);
CREATE TABLE {messages_3} PARTITION OF {messages} FOR VALUES IN (3);
CREATE TABLE {messages_4} PARTITION OF {messages} FOR VALUES IN (4);
CREATE TABLE {messages_5} PARTITION OF {messages} FOR VALUES IN (5);
CREATE TABLE {messages_6} PARTITION OF {messages} FOR VALUES IN (6);
CREATE TABLE {messages_7} PARTITION OF {messages} FOR VALUES IN (7);

CREATE INDEX ON {messages} (seq);
CREATE INDEX ON {messages} (xid, seq);

-- A bulk load in one transaction makes xid look constant, and plans go wrong on it: no statistics.
ALTER TABLE {messages} ALTER COLUMN xid SET STATISTICS 0;
ALTER TABLE {messages} ALTER COLUMN seq SET STATISTICS 0;

-- One row per destination and partition: the cursor, and the lease on it. Both in one row, since a
-- lease kept elsewhere lets a relay that lost it rewind the cursor. Rows are updated by ctid and in
-- place (HOT: no index on what changes, and free space in the page).
CREATE TABLE {cursors} (
  destination   text        NOT NULL,
  partition     smallint    NOT NULL,
  epoch         bigint      NOT NULL DEFAULT 0,
  owner         text,
  expires_at    timestamptz NOT NULL DEFAULT '-infinity',
  -- What was delivered: everything visible in from_snapshot, and of the open window (what to_snapshot
  -- sees beyond it) everything up to seq "after".
  from_snapshot pg_snapshot NOT NULL DEFAULT '1:1:',
  to_snapshot   pg_snapshot,
  after         bigint      NOT NULL DEFAULT 0,
  low           bigint      NOT NULL DEFAULT 0,
  next_low      bigint      NOT NULL DEFAULT 0,
  high          bigint      NOT NULL DEFAULT 0,
  -- The transaction that wrote this row, beside the row's own xmin: they differ after a dump is
  -- restored or the row is copied logically, and then the snapshots above mean nothing.
  written_by    xid8        NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (destination, partition)
) WITH (
  fillfactor = 10,
  autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_threshold = 2147483647
);

-- Emptied by a crash of the server and by promotion of a standby: a relay that finds its token gone
-- knows that transaction ids may have been handed out again, and reads anew.
CREATE UNLOGGED TABLE {claims} (
  destination text NOT NULL,
  partition   smallint NOT NULL,
  epoch       bigint NOT NULL,
  PRIMARY KEY (destination, partition)
) WITH (fillfactor = 10);

-- Messages set aside, whole: failed, waiting behind a failed one of their key, or dead.
CREATE TABLE {parked} (
  destination text        NOT NULL,
  seq         bigint      NOT NULL,
  key_hash    integer     NOT NULL,
  stored_at   timestamptz NOT NULL,
  at          timestamptz NOT NULL,
  parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- When to try again; null while it waits behind an earlier message of its key, or is dead.
  next_at     timestamptz,
  dead_at     timestamptz,
  attempts    integer     NOT NULL DEFAULT 0,
  id          text        NOT NULL,
  topic       text,
  key         text,
  metadata    jsonb       NOT NULL,
  payload     {payload_type} NOT NULL,
  error       text,
  PRIMARY KEY (destination, seq)
);
CREATE INDEX ON {parked} (destination, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX ON {parked} (destination, key, seq) WHERE dead_at IS NULL;

-- Facts about this outbox that relays and writers must agree on.
CREATE TABLE {settings} (
  name  text PRIMARY KEY,
  value text NOT NULL
);
INSERT INTO {settings} (name, value) VALUES
  ('partitions', '{partitions}'),
  ('payload_type', '{payload_type}'),
  ('slice_seconds', '{slice_seconds}');

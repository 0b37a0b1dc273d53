-- A publication of all tables, and its subscribers, go on while relays work.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- A subscriber compares whole rows where these have no identity of their own, and pg_snapshot has no equality: its
-- worker ended for good at the first settlement. An identity without a snapshot needs a unique index, and that of
-- migration 1 was given up by migration 2, since it is asked about every version of a row that a held-back vacuum has
-- left. So the identity has a column that changes twenty times a second while its row is settled: the index is asked
-- about the versions of a twentieth of a second, and most settlements still change no index (as one that changed with
-- each did, at a tenth more). A relay of the version before does not set it, and works as before.
ALTER TABLE {cursors} ADD COLUMN tick bigint NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX {cursors_identity} ON {cursors} (destination, partition, tick);
ALTER TABLE {cursors} REPLICA IDENTITY USING INDEX {cursors_identity};

-- The same index without that column: one is enough.
DROP INDEX IF EXISTS {cursors_places};

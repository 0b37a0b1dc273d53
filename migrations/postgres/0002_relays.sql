-- Relays that share a destination, destinations with a choice of topics, delayed messages, and more about failures.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- The relays of each destination, so that they can share its partitions evenly. A relay that did not
-- renew its row is gone. What is lost in a crash of the server is written again within seconds.
CREATE UNLOGGED TABLE {relays} (
  destination text        NOT NULL,
  relay       text        NOT NULL,
  expires_at  timestamptz NOT NULL,
  PRIMARY KEY (destination, relay)
) WITH (fillfactor = 10);

-- What is known of a destination beside its cursors. A destination without a row is one with the defaults.
CREATE TABLE {destinations} (
  name          text        PRIMARY KEY,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The topics that it publishes; null for all of them, and for messages without one.
  topics        text[],
  -- Seconds without a relay after which cleaning no longer waits for it; null for never.
  forget_after  double precision,
  -- When cleaning stopped waiting for it: what it had not published may be gone.
  forgotten_at  timestamptz,
  -- Goes up with every requeue and discard, so that its relays look anew at what waits.
  revision      bigint      NOT NULL DEFAULT 0
);

-- Not to be published before this time. It leaves its key's order then, unless it is to hold its key.
ALTER TABLE {messages} ADD COLUMN deliver_at timestamptz, ADD COLUMN hold_key boolean NOT NULL DEFAULT false;

ALTER TABLE {parked}
  ADD COLUMN deliver_at timestamptz,
  ADD COLUMN hold_key boolean NOT NULL DEFAULT false,
  -- It waits alone, outside of its key's order.
  ADD COLUMN alone boolean NOT NULL DEFAULT false,
  -- Its key waits behind it until an operator decides.
  ADD COLUMN blocked_at timestamptz,
  -- Why it is here: failed, behind, untried, delayed, straggler, dead, blocked, requeued.
  ADD COLUMN reason text,
  ADD COLUMN first_failed_at timestamptz,
  ADD COLUMN last_failed_at timestamptz;

-- The keys that wait, without what waits alone: a key may have many delayed messages.
DROP INDEX {parked_keys};
CREATE INDEX ON {parked} (destination, key, seq) WHERE dead_at IS NULL AND NOT alone;

-- What waits for an operator, among all that waits.
CREATE INDEX ON {parked} (destination, seq) WHERE dead_at IS NOT NULL OR blocked_at IS NOT NULL;

-- Found by their place while they are settled, so no unique index: while something holds back vacuum, it would
-- be asked about every version that was ever settled (0.26 ms grew to 8.4 in 20,000 settlements; without it
-- they stay at 0.13 to 0.21). Rows are made under an advisory lock instead. FULL, so that the table can be
-- published: it changes rarely enough for that.
ALTER TABLE {cursors} DROP CONSTRAINT {cursors_key};
CREATE INDEX ON {cursors} (destination, partition);
ALTER TABLE {cursors} REPLICA IDENTITY FULL;

-- What can be stored and not read would end every relay that comes to it: a payload is sent as text, two characters for
-- each byte, and a text has an end in the process that reads it. It is refused to whoever stores it in SQL too.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- Not valid: what is there already is not read through, under a lock. What is too large of it becomes a dead letter.
-- Metadata that are kept in little are not written as text to be measured: of most messages.
ALTER TABLE {messages}
  ADD CONSTRAINT id_at_most_4000_bytes CHECK (octet_length(id) <= 4000) NOT VALID,
  ADD CONSTRAINT topic_at_most_4000_bytes CHECK (octet_length(topic) <= 4000) NOT VALID,
  ADD CONSTRAINT payload_at_most_64_mib CHECK ({payload_size} <= 67108864) NOT VALID,
  ADD CONSTRAINT metadata_at_most_1_mib CHECK
    (pg_column_size(metadata) <= 4096 OR octet_length(metadata::text) <= 1048576) NOT VALID;

-- Whatever has a greater number was asked for these limits, and a relay need not ask again of each message that it reads.
-- Where a subscription feeds the table, the publisher's row comes.
INSERT INTO {settings} (name, value)
SELECT 'limited_after', greatest(pg_sequence_last_value(pg_get_serial_sequence('{''messages''}', 'seq')::regclass),
  (SELECT max(seq) FROM {messages}), 0)::text
WHERE NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = '{''settings''}'::regclass);

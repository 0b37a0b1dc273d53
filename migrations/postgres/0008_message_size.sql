-- What can be stored and not read would end every relay that comes to it: a payload is sent as text, two characters for
-- each byte, and a text has an end in the process that reads it. It is refused to whoever stores it in SQL too.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- Not valid: what is there already is not read through, under a lock. What is too large of it becomes a dead letter.
-- Up to the first number the size as it is kept is asked, which costs nothing: compressed, it is a 255th at the least.
ALTER TABLE {messages}
  ADD CONSTRAINT id_at_most_4000_bytes CHECK (octet_length(id) <= 4000) NOT VALID,
  ADD CONSTRAINT topic_at_most_4000_bytes CHECK (octet_length(topic) <= 4000) NOT VALID,
  ADD CONSTRAINT payload_at_most_64_mib CHECK ({payload_size} <= 67108864) NOT VALID,
  ADD CONSTRAINT metadata_at_most_1_mib CHECK
    (CASE WHEN pg_column_size(metadata) <= 4096 THEN true ELSE octet_length(metadata::text) <= 1048576 END) NOT VALID;

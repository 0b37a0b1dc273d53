-- A key that the side table's index does not take would end each relay that has to set its message aside: it is refused
-- to whoever stores it in SQL too.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

-- Not valid: what is there already is not read through, under a lock.
ALTER TABLE {messages} ADD CONSTRAINT key_at_most_2000_bytes CHECK (octet_length(key) <= 2000) NOT VALID;

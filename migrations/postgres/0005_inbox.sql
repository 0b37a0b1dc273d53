-- What a consumer has received, so that the effect of a message happens once. Only where messages are consumed.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.
CREATE TABLE {inbox} (
  consumer    text        NOT NULL,
  id          text        NOT NULL,
  received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer, id)
);

-- For forgetting what is old.
CREATE INDEX ON {inbox} (received_at);

-- The inbox: which consumer has had which message, so that the effect of a message that comes again does not.
-- Names in braces are replaced by quoted, schema-qualified identifiers. This file never changes.

CREATE TABLE {inbox} (
  consumer    text        NOT NULL,
  id          text        NOT NULL,
  received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer, id)
);

-- What was received long ago is deleted, the oldest first.
CREATE INDEX ON {inbox} (consumer, received_at);

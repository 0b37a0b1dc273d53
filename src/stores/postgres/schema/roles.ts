import { MessengerError } from '../../../core/errors.js';
import { checkKeys, type KeysOf } from '../../../core/util/options.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { transact, type OperationContext } from '../sql/transact.js';
import { literal, namesOf, quote, SLICES, type Names } from '../sql/names.js';
import { statement } from '../sql/statement.js';

/** The names of the roles that `rolesScript` creates, and the schema and prefix of the tables that they can use. */
export interface RolesOptions {
  /** The schema of the store's tables. @default 'messenger' */
  readonly schema?: string;
  /** The prefix of the name of every table. @default '' */
  readonly tablePrefix?: string;
  /** The role that stores messages, and can do nothing else. @default 'messenger_writer' */
  readonly writer?: string;
  /** The role for relays, including their cleaning. @default 'messenger_relay' */
  readonly relay?: string;
  /** The role that receives each message once through the inbox, and cleans the inbox. @default 'messenger_consumer' */
  readonly consumer?: string;
  /**
   * The role that owns the tables. It migrates the tables, and runs the operator functions. @default
   * 'messenger_migrator'
   */
  readonly migrator?: string;
}

type Roles = Omit<RolesOptions, 'schema' | 'tablePrefix'>;

const ROLES = { writer: true, relay: true, consumer: true, migrator: true } satisfies KeysOf<Roles>;

const OPTIONS = { schema: true, tablePrefix: true, ...ROLES } satisfies KeysOf<RolesOptions>;

/**
 * The functions and procedures that store and receive messages. The names include the argument types, because a schema
 * can have other functions with the same names.
 */
function routines({ store, storeAddressed, storeInTransaction, receiveInTransaction }: Names) {
  const signature = '(text, text, integer, integer, integer, text)';
  return {
    writers: [
      `FUNCTION ${store}${signature}`,
      `FUNCTION ${storeAddressed}${signature}`,
      `PROCEDURE ${storeInTransaction}(text, text, integer, integer, integer, text, boolean, text, text)`,
    ],
    consumers: [`PROCEDURE ${receiveInTransaction}(text, text, text)`],
  };
}

/**
 * All privileges that a writer needs. A writer cannot read messages, and has no privilege on the columns that determine
 * the order.
 */
function writerGrants(names: Names): string[] {
  const { schema, messages, destinations } = names;
  return [
    `USAGE ON SCHEMA ${quote(schema)}`,
    ...routines(names).writers.map((routine) => `EXECUTE ON ${routine}`),
    `INSERT (id, topic, key, metadata, payload, at, deliver_at, hold_key, destination) ON ${messages}`,
    // With these privileges, a writer can reject a message for a missing destination. It can also prevent the removal
    // of the destination until the message is stored.
    `SELECT (name, forgotten_at) ON ${destinations}`,
    `UPDATE (guard) ON ${destinations}`,
  ];
}

/** All privileges that a relay needs, including those for cleaning. */
function relayGrants(names: Names): string[] {
  const { schema, messages, migrations, settings, cursors, claims, relays, parked, destinations } = names;
  const slices = Array.from({ length: SLICES }, (_, n) => names.slice(n)).join(', ');
  return [
    `USAGE ON SCHEMA ${quote(schema)}`,
    `SELECT ON ${migrations}, ${settings}, ${messages}, ${slices}, ${destinations}`,
    `SELECT ON SEQUENCE ${sequence(names)}`,
    `TRUNCATE ON ${slices}`,
    `SELECT, INSERT, UPDATE ON ${cursors}, ${claims}`,
    `SELECT, INSERT, UPDATE, DELETE ON ${relays}, ${parked}`,
    // While it cleans, a relay marks destinations that no relay has served for too long.
    `UPDATE (forgotten_at) ON ${destinations}`,
  ];
}

/**
 * All privileges that an inbox needs, including those for cleaning. It locks rows before it deletes them, and locking
 * requires the UPDATE privilege.
 */
function consumerGrants(names: Names): string[] {
  const { schema, inbox } = names;
  return [
    `USAGE ON SCHEMA ${quote(schema)}`,
    ...routines(names).consumers.map((routine) => `EXECUTE ON ${routine}`),
    `INSERT (consumer, id) ON ${inbox}`,
    `SELECT, DELETE ON ${inbox}`,
    `UPDATE (received_at) ON ${inbox}`,
  ];
}

function sequence({ schema, prefix }: Names): string {
  return `${quote(schema)}.${quote(`${prefix}messages_seq_seq`)}`;
}

/**
 * Returns the SQL that creates the roles of an outbox and gives them only the privileges that they need. The roles
 * cannot log in, so grant them to users that can (`GRANT messenger_writer TO shop`). Run the script after the tables
 * have been created, with a role that may create roles and owns the tables. Run it again after each migration. You can
 * run it as often as you like.
 *
 * @throws MessengerError `INVALID_OPTION` for an option that is out of range. The error quotes the option.
 */
export function rolesScript(options: RolesOptions = {}): string {
  checkKeys(options, OPTIONS);
  const { schema = 'messenger', tablePrefix = '' } = options;
  const names = namesOf(schema, tablePrefix);
  const roles = rolesOf(options);
  const { writer, relay, consumer, migrator } = roles;
  const tables = tablesOf(names);
  const functions = Object.values(routines(names)).flat();
  const statements = [
    ...Object.values(roles).map(createRole),
    // The owner can transfer a table only to a role that the owner is a member of. PostgreSQL 16 and newer call this
    // privilege SET, and older versions call it MEMBER.
    block(
      `IF NOT pg_has_role(current_user, ${literal(migrator)}, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) THEN GRANT ${quote(migrator)} TO CURRENT_USER; END IF;`,
    ),
    `GRANT USAGE, CREATE ON SCHEMA ${quote(schema)} TO ${quote(migrator)}`,
    ...tables.map((table) => `ALTER TABLE ${table} OWNER TO ${quote(migrator)}`),
    ...functions.map((each) => `ALTER ${each} OWNER TO ${quote(migrator)}`),
    ...[...tables, ...functions].map(
      (each) => `REVOKE ALL ON ${each} FROM PUBLIC, ${[writer, relay, consumer].map(quote).join(', ')}`,
    ),
    ...writerGrants(names).map((grant) => `GRANT ${grant} TO ${quote(writer)}`),
    ...relayGrants(names).map((grant) => `GRANT ${grant} TO ${quote(relay)}`),
    ...consumerGrants(names).map((grant) => `GRANT ${grant} TO ${quote(consumer)}`),
  ];
  return `BEGIN;\nSET LOCAL standard_conforming_strings = on;\n${statements.join(';\n')};\nCOMMIT;\n`;
}

function rolesOf(options: Roles): Record<keyof Roles, string> {
  const { writer = 'messenger_writer', relay = 'messenger_relay' } = options;
  const { consumer = 'messenger_consumer', migrator = 'messenger_migrator' } = options;
  const roles = { writer, relay, consumer, migrator };
  for (const [name, role] of Object.entries(roles)) assertRole(name, role);
  if (new Set(Object.values(roles)).size === 4) return roles;
  throw new MessengerError('INVALID_OPTION', 'writer, relay, consumer and migrator must be four different roles');
}

function tablesOf(names: Names): string[] {
  const { messages, cursors, claims, parked, settings, destinations, relays, inbox, migrations } = names;
  const slices = Array.from({ length: SLICES }, (_, n) => names.slice(n));
  return [messages, ...slices, cursors, claims, parked, settings, destinations, relays, inbox, migrations];
}

/** A privilege on one of an outbox's objects that none of the outbox's roles needs. */
export interface ExcessGrant {
  /** The role that has the privilege. `PUBLIC` means everybody. */
  readonly grantee: string;
  /** The privilege and its object, as in a GRANT. */
  readonly grant: string;
  /** The SQL that revokes the privilege. */
  readonly revoke: string;
}

/**
 * Lists the privileges on an outbox's tables, sequence and functions that its roles do not need. These are all
 * privileges of anybody except the owner and the roles, and all privileges of a role that `rolesScript` does not grant.
 * Revokes nothing.
 *
 * @throws MessengerError `INVALID_OPTION` for an option that is out of range. The error quotes the option.
 */
export async function excessGrants(
  admin: OperationContext,
  { signal, ...options }: Roles & StoreCallOptions = {},
): Promise<readonly ExcessGrant[]> {
  checkKeys(options, ROLES);
  const { names } = admin;
  const { writer, relay, consumer, migrator } = rolesOf(options);
  const granted = new Map(
    [
      [writer, writerGrants(names)] as const,
      [relay, relayGrants(names)] as const,
      [consumer, consumerGrants(names)] as const,
    ].map(([role, grants]) => [role, new Set(grants.flatMap(singly))]),
  );
  const objects = [
    ...tablesOf(names).map((name) => ({ kind: 'TABLE', name })),
    { kind: 'SEQUENCE', name: sequence(names) },
    ...Object.values(routines(names))
      .flat()
      .map((routine) => {
        const space = routine.indexOf(' ');
        return { kind: routine.slice(0, space), name: routine.slice(space + 1) };
      }),
  ];
  const rows = await transact(admin, { signal }, (connection) =>
    connection.query(
      statement(
        'grants',
        `WITH o AS MATERIALIZED (SELECT row_number() OVER () AS place, * FROM json_to_recordset($1::text::json) AS o (kind text, name text))
SELECT CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee) END, g.privilege, g.kind, g.name FROM (
  SELECT o.place, o.kind, o.name, c.relowner AS owner, a.grantee, a.privilege_type AS privilege
    FROM o JOIN pg_class c ON o.kind IN ('TABLE', 'SEQUENCE') AND c.oid = to_regclass(o.name) CROSS JOIN LATERAL aclexplode(c.relacl) a
  UNION ALL
  SELECT o.place, o.kind, o.name, c.relowner, a.grantee, a.privilege_type || ' (' || quote_ident(t.attname) || ')'
    FROM o JOIN pg_class c ON o.kind = 'TABLE' AND c.oid = to_regclass(o.name) JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped
    CROSS JOIN LATERAL aclexplode(t.attacl) a
  UNION ALL
  SELECT o.place, o.kind, o.name, f.proowner, a.grantee, a.privilege_type
    FROM o JOIN pg_proc f ON o.kind IN ('FUNCTION', 'PROCEDURE') AND f.oid = to_regprocedure(o.name)
    CROSS JOIN LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
) g WHERE g.grantee <> g.owner ORDER BY 1, g.place, 2`,
      ),
      [JSON.stringify(objects)],
    ),
  );
  return (rows as readonly (readonly [string, string, string, string])[]).flatMap(
    ([grantee, privilege, kind, name]) => {
      const grant = `${privilege} ON ${kind === 'TABLE' ? '' : `${kind} `}${name}`;
      if (grantee === migrator || granted.get(grantee)?.has(grant) === true) return [];
      return [{ grantee, grant, revoke: `REVOKE ${grant} FROM ${grantee === 'PUBLIC' ? grantee : quote(grantee)}` }];
    },
  );
}

/** Splits a grant into single privileges, each on one object or column. */
function singly(grant: string): string[] {
  const [, rights = '', kind = '', objects = ''] =
    /^(.*?) ON (SCHEMA |SEQUENCE |FUNCTION |PROCEDURE )?(".*)$/s.exec(grant) ?? [];
  const columns = /^(\w+) \((.*)\)$/.exec(rights);
  const privileges = columns
    ? (columns[2] as string).split(', ').map((column) => `${columns[1] as string} (${column})`)
    : rights.split(', ');
  const separator = kind === 'FUNCTION ' || kind === 'PROCEDURE ' ? /$^/ : /(?<="), (?=")/;
  return objects.split(separator).flatMap((object) => privileges.map((right) => `${right} ON ${kind}${object}`));
}

function createRole(role: string): string {
  return block(
    `IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(role)}) THEN CREATE ROLE ${quote(role)} NOLOGIN; END IF;`,
  );
}

function block(body: string): string {
  return `DO ${literal(`BEGIN ${body} END`)}`;
}

function assertRole(option: string, role: unknown): asserts role is string {
  const fits = typeof role === 'string' && role !== '' && !role.includes('\u0000');
  if (fits && new TextEncoder().encode(role).byteLength <= 63) return;
  throw new MessengerError('INVALID_OPTION', `${option} must be the name of a role: a string of 1 to 63 bytes`);
}

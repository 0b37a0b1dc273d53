import { literal, type Names } from '../sql/names.js';

/** A table, function or procedure that a migration creates, with its name in braces and its argument types. */
export interface Made {
  readonly name: string;
  readonly signature?: string;
}

/**
 * Returns the object that a migration's statement creates, if it is an object with privileges. `made` lists the
 * functions that earlier statements created.
 */
export function madeBy(text: string, made: Set<string>): Made | undefined {
  const table = /^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?\{(\w+)\}/.exec(text);
  if (table) return { name: table[1] as string };
  const dropped = /^DROP (?:FUNCTION|PROCEDURE) (?:IF EXISTS )?\{(\w+)\}/.exec(text);
  if (dropped) for (const each of made) if (each.startsWith(`${dropped[1] as string}(`)) made.delete(each);
  const created = /^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) \{(\w+)\}\(([^)]*)\)/.exec(text);
  if (!created) return undefined;
  const [, name, list] = created as unknown as [string, string, string];
  const types = list.split(',').map((argument) =>
    argument
      .trim()
      .replace(/^(?:INOUT )?\w+ (?=\w)/, '')
      .replace(/ DEFAULT .*$/, ''),
  );
  const signature = `(${types.join(', ')})`;
  // PostgreSQL keeps the grants of a function that is replaced.
  if (made.has(name + signature)) return undefined;
  made.add(name + signature);
  return { name, signature };
}

/**
 * Returns SQL that revokes all privileges on a new object from everybody except its owner. A database's default
 * privileges can grant privileges on new tables, their sequences and functions, and PostgreSQL itself lets PUBLIC call
 * a new function. The SQL runs right after the object has been created. For a function that stores or receives
 * messages, it then grants EXECUTE to the roles that can already store or receive messages, so that an upgrade takes no
 * privilege away.
 */
export function revokeDefaults(
  { messages, inbox, receiveInTransaction }: Names,
  object: string,
  signature?: string,
): string {
  const isFunction = signature !== undefined;
  const [catalog, acl, type] = isFunction
    ? (['pg_proc', `coalesce(c.proacl, acldefault('f', c.proowner))`, 'regprocedure'] as const)
    : (['pg_class', 'c.relacl', 'regclass'] as const);
  const oid = `${literal(object + (signature ?? ''))}::${type}`;
  const sequences = `OR c.relkind = 'S' AND c.oid IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND refobjid = ${oid})`;
  const kind = isFunction ? `'ROUTINE'` : `CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END`;
  const name = `CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END`;
  const table = object === receiveInTransaction ? inbox : messages;
  const writers = `SELECT DISTINCT ${name} AS grantee FROM pg_class c LEFT JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'id'
    CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL SELECT * FROM aclexplode(t.attacl)) a
    WHERE c.oid = ${literal(table)}::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner`;
  const grant = `FOR r IN ${writers} LOOP EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', ${oid}, r.grantee); END LOOP;`;
  return `DO ${literal(`DECLARE r record; BEGIN
  FOR r IN SELECT DISTINCT ${kind} AS kind, c.oid::${type} AS name, ${name} AS grantee FROM ${catalog} c CROSS JOIN LATERAL aclexplode(${acl}) a
    WHERE (c.oid = ${oid} ${isFunction ? '' : sequences}) AND a.grantee <> ${isFunction ? 'c.proowner' : 'c.relowner'}
  LOOP EXECUTE format('REVOKE ALL ON %s %s FROM %s', r.kind, r.name, r.grantee); END LOOP;
  ${isFunction ? grant : ''}
END`)}`;
}

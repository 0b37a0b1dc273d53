import { literal, type Names } from '../sql/names.js';

/**
 * A table, function or procedure that a statement of a migration creates: its name in braces, and the types of its
 * arguments.
 */
export interface Made {
  readonly name: string;
  readonly signature?: string;
}

/** What a statement of a migration creates, if that has privileges. `made` lists what was created before. */
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
  // A function that is replaced keeps its grants.
  if (made.has(name + signature)) return undefined;
  made.add(name + signature);
  return { name, signature };
}

/**
 * SQL that revokes what default privileges granted on a table (and its sequences) or a function to anybody but its
 * owner. It runs right after the object was created. PostgreSQL itself lets PUBLIC call a new function, and that is
 * revoked too. Whoever may store (or receive) when a function for that is added may call the function, so an upgrade
 * takes nothing from anybody.
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

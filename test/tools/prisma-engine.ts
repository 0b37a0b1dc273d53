/**
 * Prisma's schema engine without its command line, which downloads a program when it is installed: the same
 * engine, of the same version, as WebAssembly from npm. A command of Prisma is one or two calls of it.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { PrismaPg } from '@prisma/adapter-pg';
import {
  bindMigrationAwareSqlAdapterFactory,
  ColumnTypeEnum,
  type SqlDriverAdapter,
} from '@prisma/driver-adapter-utils';
import * as bindings from '@prisma/schema-engine-wasm/schema_engine_bg';
import pg from 'pg';
import { newDatabase } from '../support/database.js';

/** A folder of migrations, in order: the name and the text of `migration.sql`. */
export type Migrations = readonly (readonly [name: string, sql: string])[];

/** What Prisma finds in a project. */
export interface PrismaProject {
  readonly models: string;
  /** As in schema.prisma. @default only `public` */
  readonly schemas?: readonly string[];
  /** `tables.external` of prisma.config.ts. */
  readonly external?: string[];
  readonly migrations?: Migrations;
}

/** What is used of it here: its types come with those of browsers only. */
interface WebAssembly {
  instantiate(bytes: Uint8Array, imports: object): Promise<{ instance: { exports: { __wbindgen_start(): void } } }>;
}
const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssembly };
const wasm = new URL('schema_engine_bg.wasm', import.meta.resolve('@prisma/schema-engine-wasm'));
const imports = { './schema_engine_bg.js': bindings };
const { instance } = await WebAssembly.instantiate(await readFile(fileURLToPath(wasm)), imports);
bindings.__wbg_set_wasm(instance.exports);
instance.exports.__wbindgen_start();

/** The catalogs have columns of the type "char", which the adapter does not know. */
const CHAR = 18;
const TEXT = 25;

class CatalogPool extends pg.Pool {
  override query = (async (...args: unknown[]) => {
    const query = pg.Pool.prototype.query.bind(this) as (...args: unknown[]) => unknown;
    const results = [(await query(...args)) as pg.QueryResult | pg.QueryResult[]].flat();
    for (const { fields } of results)
      for (const field of fields) if (field.dataTypeID === CHAR) field.dataTypeID = TEXT;
    return results.at(-1);
  }) as pg.Pool['query'];
}

async function connect(
  url: string,
  ended: () => Promise<unknown> = () => Promise.resolve(),
): Promise<SqlDriverAdapter> {
  const pool = new CatalogPool({ connectionString: url, max: 2 });
  const adapter = await new PrismaPg(pool).connect();
  // Of these it wants one as a character, where there is a CHECK among the tables.
  const queryRaw = adapter.queryRaw.bind(adapter);
  adapter.queryRaw = async (query) => {
    const result = await queryRaw(query);
    const columnTypes = result.columnTypes.map((type, i) =>
      result.columnNames[i] === 'constraint_type' ? ColumnTypeEnum.Character : type,
    );
    return { ...result, columnTypes };
  };
  // As the program does: all of a file at once. The adapter cuts it at every `;`.
  adapter.executeScript = async (script) => {
    await pool.query(script);
  };
  adapter.dispose = async () => {
    await pool.end();
    await ended();
  };
  return adapter;
}

/** `public` counts as all that there is when no schemas are named. */
const datamodel = ({ models, schemas }: PrismaProject) => `datasource db {
  provider = "postgresql"
  ${schemas === undefined ? '' : `schemas = ${JSON.stringify(schemas)}`}
}
${models}`;

/** The commands of Prisma in a project, on a database. */
export async function prisma(url: string, project: PrismaProject) {
  const files = [{ path: 'schema.prisma', content: datamodel(project) }];
  const factory = {
    provider: 'postgres' as const,
    adapterName: '@prisma/adapter-pg',
    connect: () => connect(url),
    connectToShadowDb: async () => {
      const shadow = await newDatabase(url);
      const name = new URL(shadow).pathname.slice(1);
      return connect(shadow, async () => {
        const admin = await connect(url);
        await admin.executeScript(`DROP DATABASE ${name} WITH (FORCE)`);
        await admin.dispose();
      });
    },
  };
  const engine = await bindings.SchemaEngine.new(
    { datamodels: files.map(({ path, content }) => [path, content]) },
    () => {},
    bindMigrationAwareSqlAdapterFactory(factory),
  );
  const filters = { externalTables: project.external ?? [], externalEnums: [] };
  const schema = { files };
  const migrationsList = {
    baseDir: '/prisma/migrations',
    lockfile: { path: 'migration_lock.toml', content: 'provider = "postgresql"' },
    shadowDbInitScript: '',
    migrationDirectories: (project.migrations ?? []).map(([path, value]) => ({
      path,
      migrationFile: { path: 'migration.sql', content: { tag: 'ok' as const, value } },
    })),
  };
  return {
    /** `prisma migrate deploy`: the names of what it applied. */
    deploy: async () => (await engine.applyMigrations({ migrationsList, filters })).appliedMigrationNames,
    /** `prisma migrate dev`: why it wants to reset the database, or the SQL that it would add; null for none. */
    dev: async (): Promise<{ reset?: string; next?: string | null }> => {
      const { action } = await engine.devDiagnostic({ migrationsList, filters });
      if (action.tag === 'reset') return { reset: action.reason };
      const migration = { draft: false, migrationName: 'next', migrationsList, schema, filters };
      return { next: (await engine.createMigration(migration)).migrationScript };
    },
    /** `prisma db push`: what it did, and what it asks to be allowed. */
    push: (force = false) => engine.schemaPush({ force, schema, filters }),
    /** `prisma db pull`: the models of the database. */
    pull: async () => {
      const options = { force: true, compositeTypeDepth: 0, namespaces: [...(project.schemas ?? [])] };
      const pulled = await engine.introspect({ schema, baseDirectoryPath: '/prisma', ...options });
      return pulled.schema.files.map(({ content }) => content).join('\n');
    },
    /** `prisma migrate reset`, before it applies all migrations again. */
    reset: () => engine.reset({ filter: filters }),
  };
}

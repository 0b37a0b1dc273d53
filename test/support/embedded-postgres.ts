import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, chown, cp, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';

const platform = `${process.platform}-${process.arch}`;
/** 14 is the oldest that is supported. It comes for Linux on x64 alone; elsewhere 15 stands in for it. */
export const oldest = platform === 'linux-x64' ? 14 : 15;
/** The PostgreSQL versions that come with `npm ci`. A server of each is started for every run of tests. */
export const everyVersion = [oldest, 17, 18] as const;
export type PostgresVersion = (typeof everyVersion)[number];

/** Through a pooler one version is enough: what differs there is what a session keeps, and not what the server does. */
const isPooled = process.env['POSTGRES_POOLER'] !== undefined || process.env['POSTGRES_VERSION'] === '17';

/** The versions for tests of what the server itself decides: plans, snapshots, locks, rights, settings. */
export const postgresVersions: readonly PostgresVersion[] = isPooled ? [17] : everyVersion;

/** The oldest version and the newest, for tests of what the store does by means that every version has. */
export const outermostVersions: readonly PostgresVersion[] = isPooled ? [17] : [oldest, 18];

export interface EmbeddedPostgres {
  readonly port: number;
  readonly dataDirectory: string;
  readonly pid: number;
  /** A connection string of a database, `postgres` unless named. */
  url(database?: string): string;
  /** Creates a database and returns its connection string. */
  createDatabase(name: string): Promise<string>;
  /** Stops the server: `fast` by default, `immediate` as a crash would. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** Starts it again on the same data, and on the same port unless told another. */
  start(port?: number): Promise<void>;
  /** Stops it and removes its files. */
  remove(): Promise<void>;
}

/** PostgreSQL refuses to run as root: then it runs as `nobody`. */
const nobody = 65534;
const isRoot = process.getuid?.() === 0;
export const identity: { uid?: number; gid?: number } = isRoot ? { uid: nobody, gid: nobody } : {};

export interface StartOptions {
  /** A server that is stopped: its files are copied as they are. */
  readonly clonedFrom?: Pick<EmbeddedPostgres, 'dataDirectory'>;
  /** The clone replicates from this port, until it is promoted. */
  readonly replicating?: number;
  /** A folder with `initdb` and `postgres`, in place of those from npm. */
  readonly programs?: string;
}

/**
 * Starts a real PostgreSQL from npm on a free loopback port, with its files in a temporary folder.
 * `settings` are command-line settings such as `{ max_prepared_transactions: 10 }`.
 */
export async function startPostgres(
  version: PostgresVersion = 17,
  settings: Readonly<Record<string, string | number>> = {},
  { clonedFrom, replicating, programs }: StartOptions = {},
): Promise<EmbeddedPostgres> {
  const root = await mkdtemp(path.join(tmpdir(), 'messenger-pg-'));
  await chmod(root, 0o755);
  const dataDirectory = await mkdtemp(path.join(root, 'data-'));
  if (isRoot) await chown(dataDirectory, nobody, nobody);
  const bin = programs ?? path.join(await reachableNative(version, root), 'bin');
  if (clonedFrom) await copyData(clonedFrom.dataDirectory, dataDirectory);
  else
    await run(path.join(bin, 'initdb'), [
      ...['-D', dataDirectory, '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8', '--locale=C'],
    ]);
  const replication =
    replicating === undefined ? {} : { primary_conninfo: `host=127.0.0.1 port=${String(replicating)} user=postgres` };
  if (replicating !== undefined) await writeFile(path.join(dataDirectory, 'standby.signal'), '');
  let port = await freePort();
  let server: ChildProcess | undefined;

  async function start(at = port): Promise<void> {
    port = at;
    const flags = Object.entries({
      max_connections: 200,
      max_prepared_transactions: 20,
      ...replication,
      ...settings,
    });
    const child = spawn(
      path.join(bin, 'postgres'),
      [
        ...['-D', dataDirectory, '-p', String(port), '-k', dataDirectory, '-h', '127.0.0.1'],
        ...flags.flatMap(([name, value]) => ['-c', `${name}=${String(value)}`]),
      ],
      { ...identity, cwd: dataDirectory, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    server = child;
    let log = '';
    child.stderr.on('data', (data: Buffer) => {
      log = (log + data.toString()).slice(-20_000);
    });
    await answering(child, () => log);
  }

  async function answering(child: ChildProcess, log: () => string): Promise<void> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      if (child.exitCode !== null) throw new Error(`PostgreSQL did not start (${bin}):\n${log()}`);
      const client = new pg.Client({ connectionString: url(), connectionTimeoutMillis: 2_000 });
      try {
        await client.connect();
        await client.end();
        return;
      } catch (error) {
        await client.end().catch(() => undefined);
        if (Date.now() > deadline) throw new Error(`PostgreSQL did not answer:\n${log()}`, { cause: error });
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async function stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    const child = server;
    server = undefined;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    await exited;
  }

  function url(database = 'postgres'): string {
    return `postgresql://postgres@127.0.0.1:${String(port)}/${database}`;
  }

  await start();
  return {
    get port() {
      return port;
    },
    dataDirectory,
    get pid() {
      if (server?.pid === undefined) throw new Error('the server is stopped');
      return server.pid;
    },
    url,
    async createDatabase(name) {
      const client = new pg.Client({ connectionString: url() });
      await client.connect();
      try {
        await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`);
      } finally {
        await client.end();
      }
      return url(name);
    },
    stop,
    start,
    async remove() {
      await stop();
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** The files of a server as they are, for `nobody` where that is who runs it. */
async function copyData(from: string, to: string): Promise<void> {
  // cp would leave them root's, where the test is run by root.
  await run('/bin/cp', ['-R', `${from}/.`, to]);
}

/** The package's binaries, or a copy of them where `nobody` cannot reach the package. */
async function reachableNative(version: PostgresVersion, root: string): Promise<string> {
  const entry = createRequire(import.meta.url).resolve(`pg${String(version)}-${platform}`);
  const native = path.join(path.dirname(entry), '../native');
  await linkLibraries(native);
  await access(path.join(native, 'bin/postgres'));
  if (!isRoot || (await everyoneMayPass(native))) return native;
  const copy = path.join(root, 'native');
  await cp(native, copy, { recursive: true, verbatimSymlinks: true });
  return copy;
}

/**
 * The package carries no links, and makes them in its install script. npm may be told not to run those,
 * so whatever is missing is made here.
 */
async function linkLibraries(native: string): Promise<void> {
  const list = path.join(native, 'pg-symlinks.json');
  const links = JSON.parse(await readFile(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const link = path.join(native, '..', target);
    await symlink(path.relative(path.dirname(target), source), link).catch((error: unknown) => {
      if ((error as { code?: unknown }).code !== 'EEXIST') throw error;
    });
  }
}

async function everyoneMayPass(folder: string): Promise<boolean> {
  for (let at = folder; ; at = path.dirname(at)) {
    const { mode } = await stat(at);
    if ((mode & 0o001) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}

/** Runs a program as whoever runs the servers; resolves to what it says on standard output. */
export async function run(command: string, args: readonly string[], cwd = tmpdir()): Promise<string> {
  const child = spawn(command, args, { ...identity, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      output += data.toString();
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${path.basename(command)} failed (${String(code)}):\n${output}`);
  return said;
}

/** A port of the loopback interface that nobody listens on. */
export async function freePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { freePort, identity } from './embedded-postgres.js';

/** A PgBouncer in transaction mode before a PostgreSQL server. */
export interface PgBouncer {
  /** The connection string that leads through it to the same database. */
  through(url: string): string;
  remove(): Promise<void>;
}

/** Starts the PgBouncer of the machine (Debian: `apt-get install pgbouncer`) before the server on this port. */
export async function startPgBouncer(serverPort: number): Promise<PgBouncer> {
  const folder = await mkdtemp(path.join(tmpdir(), 'messenger-pgbouncer-'));
  await chmod(folder, 0o755);
  const { uid, gid } = identity;
  if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid);
  const port = await freePort();
  const file = path.join(folder, 'pgbouncer.ini');
  const users = path.join(folder, 'users.txt');
  // The others are asked for: it knows only those of the server.
  await writeFile(users, '"postgres" ""\n');
  await writeFile(
    file,
    `[databases]
* = host=127.0.0.1 port=${String(serverPort)}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${String(port)}
unix_socket_dir =
auth_type = trust
auth_file = ${users}
auth_user = postgres
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 40
server_idle_timeout = 5
server_login_retry = 1
ignore_startup_parameters = extra_float_digits
`,
  );
  const child = spawn('pgbouncer', [file], { ...identity, stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (data: Buffer) => {
    log = (log + data.toString()).slice(-20_000);
  });
  const ended = once(child, 'close').catch((cause: unknown) => {
    throw new Error('PgBouncer cannot be started: install it (Debian: apt-get install pgbouncer)', { cause });
  });
  const through = (url: string) => {
    const pooled = new URL(url);
    pooled.port = String(port);
    return pooled.href;
  };
  const remove = async () => {
    child.kill('SIGQUIT');
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await Promise.race([
      answering(through(`postgresql://postgres@127.0.0.1:${String(serverPort)}/postgres`)),
      ended.then(() => {
        throw new Error(`PgBouncer ended:\n${log}`);
      }),
    ]);
  } catch (error) {
    await remove().catch(() => undefined);
    throw error;
  }
  return { through, remove };
}

async function answering(url: string): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    try {
      await client.connect();
      await client.query('SELECT 1');
      await client.end();
      return;
    } catch (error) {
      await client.end().catch(() => undefined);
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

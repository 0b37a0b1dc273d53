import { access, readdir } from 'node:fs/promises';
import path from 'node:path';

/** Where Debian puts the servers, a folder for each version. */
const HOME = '/usr/lib/postgresql';

const NEEDED = ['initdb', 'postgres', 'pg_ctl', 'pg_upgrade', 'pg_dump', 'pg_restore', 'pg_basebackup', 'psql'];

/** The folder with the programs of the newest PostgreSQL that has them all. */
export async function findPrograms(): Promise<string> {
  const versions = (await readdir(HOME).catch(() => [])).sort((a, b) => Number(b) - Number(a));
  for (const version of versions) {
    const folder = path.join(HOME, version, 'bin');
    const found = await Promise.all(
      NEEDED.map((program) => access(path.join(folder, program)).then(Boolean.bind(null, true), () => false)),
    );
    if (found.every(Boolean)) return folder;
  }
  throw new Error(
    `npm run test:system needs ${NEEDED.join(', ')} in ${HOME}/<version>/bin: apt-get install -y --no-install-recommends postgresql postgresql-client`,
  );
}

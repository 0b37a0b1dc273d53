import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** How a command ended, and what it printed, line by line. */
export interface Ended {
  readonly code: number;
  readonly stdout: string[];
  readonly stderr: string;
}

/** Runs `messenger` on the database of a connection string, without a terminal. */
export async function messenger(url: string, ...args: string[]): Promise<Ended> {
  return ended(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], url);
}

/** The same on a terminal of its own, on which `typed` is typed. Both outputs are in `stdout`. */
export async function onTerminal(url: string, typed: string, ...args: string[]): Promise<Ended> {
  const command = [process.execPath, '--import', 'tsx', 'src/cli/main.ts', ...args];
  const quoted = command.map((each) => `'${each.replaceAll("'", `'\\''`)}'`).join(' ');
  return ended('script', ['-qec', quoted, '/dev/null'], url, typed);
}

function ended(file: string, args: readonly string[], url: string, typed?: string): Promise<Ended> {
  const env = { PATH: process.env['PATH'], DATABASE_URL: url };
  return new Promise((resolve) => {
    const child = execFile(file, args, { cwd: root, env }, (error, stdout, stderr) => {
      const lines = stdout.split(/\r?\n/).filter((line) => line !== '');
      resolve({ code: error === null ? 0 : Number(error.code), stdout: lines, stderr });
    });
    if (typed === undefined) child.stdin?.end();
    // Type only after the question: a terminal may lose what is typed before.
    else child.stdout?.on('data', (data: string) => data.includes('[y/N]') && child.stdin?.end(typed));
  });
}

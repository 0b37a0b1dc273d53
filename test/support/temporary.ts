import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestProject } from 'vitest/node';

/** What caches for the next run, and is nobody's to remove. */
const CACHES = /^(jest|tsx-|node-compile-cache)/;

/**
 * A folder for all temporary files of a run, removed at its end however it ends, with the servers that still run in it.
 * What a test has left in it fails a run that came to its end.
 */
export default function setup(project: TestProject): () => void {
  const former = tmpdir();
  const folder = mkdtempSync(path.join(former, 'messenger-test-'));
  // As any temporary folder: servers run as somebody else, where root runs the tests.
  chmodSync(folder, 0o1777);
  process.env['TMPDIR'] = folder;
  const remove = () => {
    for (const pid of serversIn(folder)) end(pid);
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    // Vitest leaves the modules that it has transformed.
    const { _tmpDir: transformed } = project.vitest as unknown as { _tmpDir?: unknown };
    if (typeof transformed === 'string' && path.dirname(transformed) === former) {
      rmSync(transformed, { recursive: true, force: true });
    }
  };
  process.once('exit', remove);
  return () => {
    process.env['TMPDIR'] = former;
    const left = readdirSync(folder).filter((name) => !CACHES.test(name));
    const failed = project.vitest.state.getCountOfFailedTests() > 0;
    if (left.length === 0 || failed) return;
    throw new Error(
      `tests have left ${left.join(', ')} in the temporary folder: remove what a test makes when it ends`,
    );
  };
}

/** The servers of PostgreSQL whose data is in the folder; some may be ending now, and take their files with them. */
function serversIn(folder: string): number[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => path.basename(file) === 'postmaster.pid')
      .flatMap((file) => pidIn(path.join(folder, file)));
  } catch {
    return [];
  }
}

function pidIn(file: string): number[] {
  try {
    const pid = Number(readFileSync(file, 'utf8').split('\n')[0]);
    return Number.isSafeInteger(pid) && pid > 1 ? [pid] : [];
  } catch {
    return [];
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGQUIT');
  } catch {
    // It has ended meanwhile.
  }
}

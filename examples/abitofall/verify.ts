import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { ROOT, withoutPostgres, type VerifierAddresses } from './engines.js';
import type { Findings } from '../../test/support/verifier/judge.js';

/** Has a process of its own look at the databases and at its own queue, and returns what it says. */
export async function verify({
  databases,
  endpoint,
  queue,
}: VerifierAddresses): Promise<{ findings: Findings; exitCode: number }> {
  const child = spawn(
    process.execPath,
    [
      ...['--import', 'tsx', fileURLToPath(new URL('../../test/support/verifier/main.ts', import.meta.url))],
      ...['--shop', databases.shop, '--warehouse', databases.warehouse, '--records', databases.verifier],
      ...(queue === undefined ? [] : ['--endpoint', endpoint, '--queue', queue]),
    ],
    { cwd: ROOT, env: withoutPostgres(process.env), stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [output, [exitCode]] = await Promise.all([
    text(child.stdout),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  // It ends with 1 when something is wrong, and with anything else when it cannot tell.
  if (exitCode !== 0 && exitCode !== 1) throw new Error(`the verifier failed (exit code ${String(exitCode)})`);
  return { findings: JSON.parse(output) as Findings, exitCode };
}

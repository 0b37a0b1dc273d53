import { createInterface } from 'node:readline/promises';
import { MessengerError } from '../core/errors.js';

/**
 * Asks on a terminal whether to continue. A script must pass `--yes` instead.
 *
 * @param what The action, as a clause: `permanently delete 12 messages`.
 * @throws MessengerError `INVALID_OPTION` if there is no terminal to ask on, `CONFLICT` if the answer is not yes.
 */
export async function confirm(what: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (!process.stdin.isTTY) {
    throw new MessengerError(
      'INVALID_OPTION',
      `this would ${what}, and there is no terminal to ask on: pass --yes to do it. Nothing was changed`,
    );
  }
  const asked = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => {
    asked.once('close', () => {
      resolve('');
    });
  });
  try {
    const answer = await Promise.race([asked.question(`${what}? [y/N] `), closed]);
    if (/^y(es)?$/i.test(answer.trim())) return;
  } finally {
    asked.close();
  }
  throw new MessengerError('CONFLICT', `the answer was not yes: nothing was changed`);
}

/** Prints a remark to standard error, so that scripts can read standard output. */
export function note(text: string): void {
  console.error(text);
}

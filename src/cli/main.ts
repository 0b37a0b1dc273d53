#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { textOf } from '../core/util/error-text.js';
import { MessengerError, toError } from '../core/errors.js';
import { commands } from './commands.js';

const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
const { version } = JSON.parse(manifest) as { version: string };

const program = new Command('messenger')
  .version(version, '--version', 'print the version of this package')
  .description('Set up and operate a transactional outbox in PostgreSQL.')
  .showHelpAfterError()
  .exitOverride();
for (const command of commands()) program.addCommand(command);

try {
  await program.parseAsync();
} catch (thrown) {
  // Commander has already printed the requested help, or what is wrong with the arguments.
  if (thrown instanceof CommanderError) process.exitCode = thrown.exitCode;
  else {
    const error = toError(thrown);
    const code = error instanceof MessengerError ? ` [${error.code}]` : '';
    const cause = error.cause instanceof Error && error.message !== '' ? textOf(error.cause) : undefined;
    // Leave out the cause, which gets its own line.
    const text = cause === undefined ? textOf(error) : textOf(error.message);
    console.error(`messenger: ${text}${code}`);
    if (cause !== undefined && !text.includes(cause)) console.error(`  because: ${cause}`);
    process.exitCode = 1;
  }
}

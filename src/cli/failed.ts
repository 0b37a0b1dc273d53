import { Command } from 'commander';
import type { DeadLettersOptions, DeadLetterSelection, OutboxAdmin, ParkedOptions } from '../core/contracts/admin.js';
import type { Message } from '../core/contracts/message.js';
import { confirm, note } from './confirm.js';
import { databaseOptions, withAdmin, type DatabaseFlags } from './database.js';
import { listed, nameOf, time, wholeNumber } from './values.js';

/** `messenger parked`: lists the parked messages. Dead letters are not among them. */
export function parked(): Command {
  return paged(selecting(new Command('parked')))
    .description(
      'print parked messages as JSON, one per line: messages that are delayed, blocked, waiting for a retry, or waiting behind an earlier message with the same key',
    )
    .option('--state <state>', 'only messages in this state: retry, behind, delayed or blocked', nameOf)
    .action(async (flags: DatabaseFlags & ParkedOptions) => {
      const { database, options } = parted(flags);
      print(await withAdmin(database, (admin) => admin.parked(options)), options, 'no parked message matches');
    });
}

/** `messenger dead-letters`: lists dead letters and blocked messages. */
export function deadLetters(): Command {
  return paged(givenUp(new Command('dead-letters')))
    .description('print dead letters and blocked messages as JSON, one per line, with payloads as text')
    .action(async (flags: DatabaseFlags & DeadLettersOptions) => {
      const { database, options } = parted(flags);
      print(
        await withAdmin(database, (admin) => admin.deadLetters(options)),
        options,
        'no dead letter or blocked message matches',
      );
    });
}

/** `messenger requeue`: makes relays try dead letters and blocked messages again. */
export function requeue(): Command {
  return givenUp(new Command('requeue'))
    .description('make relays retry dead letters and blocked messages, in order; works even while relays run')
    .option('--all', 'all dead letters and blocked messages of the destination')
    .option('--dry-run', 'print how many messages match, and change nothing')
    .action(async (flags: DatabaseFlags & DeadLetterSelection) => {
      const { database, options } = parted(flags);
      const count = await withAdmin(database, (admin) => admin.requeue(options));
      tell(options, count, 'requeued', 'would requeue');
    });
}

/** `messenger discard`: deletes dead letters and blocked messages, after somebody has confirmed their number. */
export function discard(): Command {
  return givenUp(new Command('discard'))
    .description('permanently delete dead letters and blocked messages; works even while relays run')
    .option('--all', 'all dead letters and blocked messages of the destination')
    .option('--dry-run', 'print how many messages match, and change nothing')
    .option('--yes', 'do not ask; needed without a terminal, except with --ids')
    .action(async ({ yes = false, ...flags }: DatabaseFlags & DeadLetterSelection & { yes?: boolean }) => {
      const { database, options } = parted(flags);
      const count = await withAdmin(database, async (admin) => {
        await agree(admin, options, yes);
        return admin.discard(options);
      });
      tell(options, count, 'deleted', 'would delete');
    });
}

/** Asks for confirmation, unless the messages were selected by id, because the user then knows how many there are. */
async function agree(admin: OutboxAdmin, options: DeadLetterSelection, yes: boolean): Promise<void> {
  if (yes || options.dryRun === true || options.ids !== undefined) return;
  const count = await admin.discard({ ...options, dryRun: true });
  if (count === 0) return;
  const of = `destination ${JSON.stringify(options.destination ?? 'default')}`;
  await confirm(`permanently delete ${String(count)} dead letters and blocked messages of ${of}`, false);
}

function tell(
  { destination = 'default', dryRun }: DeadLetterSelection,
  count: number,
  done: string,
  would: string,
): void {
  console.log(`${dryRun === true ? would : done} ${String(count)} messages`);
  if (count > 0) return;
  const flag = destination === 'default' ? '' : ` --destination ${destination}`;
  note(`no dead letter or blocked message matches: messenger dead-letters${flag} lists all of them`);
}

function print(
  found: readonly { readonly seq: number; readonly message: Message }[],
  { limit = 100, destination = 'default' }: { limit?: number | undefined; destination?: string | undefined },
  nothing: string,
): void {
  for (const { message, ...rest } of found) {
    const payload = new TextDecoder().decode(message.payload);
    const { id, topic, key, metadata, at } = message;
    console.log(JSON.stringify({ ...rest, message: { id, topic, key, metadata, at, payload } }));
  }
  if (found.length === 0) note(`${nothing} for destination ${JSON.stringify(destination)}`);
  if (found.length === limit) note(`there may be more: add --after ${String(found.at(-1)?.seq)}`);
}

function selecting(command: Command): Command {
  return databaseOptions(command)
    .option('--destination <name>', "the destination (default: 'default')", nameOf)
    .option('--ids <ids...>', 'only these message ids', listed)
    .option('--key <key>', 'only messages with this key', nameOf)
    .option('--topic <topic>', 'only messages with this topic', nameOf)
    .option('--error <text>', 'only messages whose error contains this text', nameOf);
}

/** Adds the flags of a `DeadLetterSelection`. */
function givenUp(command: Command): Command {
  return selecting(command)
    .option('--state <state>', 'only messages in this state: dead or blocked', nameOf)
    .option(
      '--since <time>',
      'only messages that became dead or blocked at this time or later, such as 2026-01-31T12:00:00Z, or 7d for 7 days ago',
      time,
    )
    .option('--until <time>', 'only messages that became dead or blocked before this time', time);
}

function paged(command: Command): Command {
  return command
    .option('--limit <number>', 'how many at most (default: 100)', wholeNumber)
    .option('--after <seq>', 'only messages with a seq greater than this', wholeNumber);
}

/** Divides the flags into those that select the outbox, and the rest. Contains only flags that were given. */
function parted<T extends DatabaseFlags>(flags: T) {
  const { url, schema, tablePrefix, jsonPayload, ...options } = flags;
  const database = Object.entries({ url, schema, tablePrefix, jsonPayload }).filter(([, value]) => value !== undefined);
  return { database: Object.fromEntries(database) as DatabaseFlags, options };
}

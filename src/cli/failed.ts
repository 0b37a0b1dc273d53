import { Command } from 'commander';
import type { DeadLettersOptions, DeadLetterSelection, OutboxAdmin, ParkedOptions } from '../core/contracts/admin.js';
import type { Message } from '../core/contracts/message.js';
import { confirm, note } from './confirm.js';
import { databaseOptions, withAdmin, type DatabaseFlags } from './database.js';
import { listed, nameOf, time, wholeNumber } from './values.js';

/** `messenger parked`: what is parked and not given up. */
export function parked(): Command {
  return paged(selecting(new Command('parked')))
    .description('what waits to be tried again, behind others of its key or for its time, as JSON, one a line')
    .option('--state <state>', 'only one of: retry, behind, delayed, blocked', nameOf)
    .action(async (flags: DatabaseFlags & ParkedOptions) => {
      const { database, options } = parted(flags);
      print(await withAdmin(database, (admin) => admin.parked(options)), options, 'nothing waits');
    });
}

/** `messenger dead-letters`: what was given up. */
export function deadLetters(): Command {
  return paged(givenUp(new Command('dead-letters')))
    .description('what was given up, as JSON, one a line, payloads as text')
    .action(async (flags: DatabaseFlags & DeadLettersOptions) => {
      const { database, options } = parted(flags);
      print(
        await withAdmin(database, (admin) => admin.deadLetters(options)),
        options,
        'nothing that matches was given up',
      );
    });
}

/** `messenger requeue`: has what was given up tried again. */
export function requeue(): Command {
  return givenUp(new Command('requeue'))
    .description('have what was given up tried again, in order, also while relays run')
    .option('--all', 'all of the destination')
    .option('--dry-run', 'say how many they are, and change nothing')
    .action(async (flags: DatabaseFlags & DeadLetterSelection) => {
      const { database, options } = parted(flags);
      const count = await withAdmin(database, (admin) => admin.requeue(options));
      tell(options, count, 'requeued', 'would requeue');
    });
}

/** `messenger discard`: deletes what was given up, once somebody has agreed to how many they are. */
export function discard(): Command {
  return givenUp(new Command('discard'))
    .description('delete what was given up, for ever, also while relays run')
    .option('--all', 'all of the destination')
    .option('--dry-run', 'say how many they are, and change nothing')
    .option('--yes', 'do not ask; needed without a terminal, but for --ids')
    .action(async ({ yes = false, ...flags }: DatabaseFlags & DeadLetterSelection & { yes?: boolean }) => {
      const { database, options } = parted(flags);
      const count = await withAdmin(database, async (admin) => {
        await agree(admin, options, yes);
        return admin.discard(options);
      });
      tell(options, count, 'deleted', 'would delete');
    });
}

/** Whoever names each message knows how many they are. */
async function agree(admin: OutboxAdmin, options: DeadLetterSelection, yes: boolean): Promise<void> {
  if (yes || options.dryRun === true || options.ids !== undefined) return;
  const count = await admin.discard({ ...options, dryRun: true });
  if (count === 0) return;
  const of = `destination ${JSON.stringify(options.destination ?? 'default')}`;
  await confirm(`delete ${String(count)} messages of ${of} that were given up, for ever`, false);
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
  note(`nothing that matches was given up: messenger dead-letters${flag} lists what was`);
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
  if (found.length === 0) note(`${nothing} at ${JSON.stringify(destination)}`);
  if (found.length === limit) note(`there may be more: add --after ${String(found.at(-1)?.seq)}`);
}

function selecting(command: Command): Command {
  return databaseOptions(command)
    .option('--destination <name>', "whose (default: 'default')", nameOf)
    .option('--ids <ids...>', 'only these message ids', listed)
    .option('--key <key>', 'only of this key', nameOf)
    .option('--topic <topic>', 'only of this topic', nameOf)
    .option('--error <text>', 'only those whose error contains this', nameOf);
}

/** The flags of a `DeadLetterSelection`. */
function givenUp(command: Command): Command {
  return selecting(command)
    .option('--state <state>', 'only dead, or only blocked ones', nameOf)
    .option(
      '--since <time>',
      'only those given up at this time or later, such as 2026-01-31T12:00:00Z, or 7d ago',
      time,
    )
    .option('--until <time>', 'only those given up before this time', time);
}

function paged(command: Command): Command {
  return command
    .option('--limit <number>', 'how many at most (default: 100)', wholeNumber)
    .option('--after <seq>', 'only those behind this one', wholeNumber);
}

/** What says which outbox is meant, and the rest. Only flags that were given are there. */
function parted<T extends DatabaseFlags>(flags: T) {
  const { url, schema, tablePrefix, jsonPayload, ...options } = flags;
  const database = Object.entries({ url, schema, tablePrefix, jsonPayload }).filter(([, value]) => value !== undefined);
  return { database: Object.fromEntries(database) as DatabaseFlags, options };
}

import { Command, InvalidArgumentError, Option } from 'commander';
import { MessengerError } from '../core/errors.js';
import {
  rolesScript,
  type AddDestinationOptions,
  type FailedSelection,
  type RolesOptions,
} from '../stores/postgres/index.js';
import { databaseOptions, nameOf, wholeNumber, withStore, type DatabaseFlags } from './database.js';

/** The commands of an operator. Each is one function of the store, and prints what it returns. */
export function operatorCommands(): Command[] {
  return [
    ...[repartition(), roles(), adopt()],
    ...[destinations(), addDestination(), removeDestination()],
    ...[deadLetters(), requeue(), discard()],
  ];
}

function repartition(): Command {
  return databaseOptions(new Command('repartition'))
    .description('spread the keys over another number of partitions, while no relay runs')
    .argument('<partitions>', 'how many: 1 to 1,024', wholeNumber)
    .action(async (partitions: number, flags: DatabaseFlags) => {
      await withStore(flags, (store) => store.repartition(partitions));
      console.log(`${String(partitions)} partitions: give it to every store as the option partitions`);
    });
}

function roles(): Command {
  return databaseOptions(new Command('roles'))
    .description('print who holds more rights than the roles need, or the SQL of the roles; changes nothing')
    .option('--sql', 'print the SQL of the roles writer, relay, consumer and migrator')
    .option('--writer <role>', 'stores messages (default: messenger_writer)', nameOf)
    .option('--relay <role>', 'relays and cleans (default: messenger_relay)', nameOf)
    .option('--consumer <role>', 'receives each message once (default: messenger_consumer)', nameOf)
    .option('--migrator <role>', 'owns the tables (default: messenger_migrator)', nameOf)
    .action(async ({ sql, url, jsonPayload: _, ...options }: DatabaseFlags & RolesOptions & { sql?: boolean }) => {
      if (sql === true) {
        process.stdout.write(rolesScript(options));
        return;
      }
      const { schema, tablePrefix, ...roles } = options;
      const excess = await withStore(given({ url, schema, tablePrefix, jsonPayload: undefined }), (store) =>
        store.excessGrants(roles),
      );
      for (const { grantee, grant, revoke } of excess) console.log(`-- ${grantee} holds ${grant}\n${revoke};`);
      if (excess.length === 0) console.log('-- nobody holds more than the roles need: for their SQL, give --sql');
    });
}

function adopt(): Command {
  return databaseOptions(new Command('adopt'))
    .description("take over the unpublished messages of the Go module's table; again, what came since")
    .option('--from-schema <name>', "the schema of its table (default: 'public')", nameOf)
    .option('--from-table <name>', "its table (default: 'messages')", nameOf)
    .option('--key <name>', 'the metadata key whose value becomes the key', nameOf)
    .option('--topic <name>', 'the metadata key whose value becomes the topic', nameOf)
    .action(async ({ fromSchema, fromTable, key, topic, ...flags }: DatabaseFlags & Record<string, string>) => {
      const adopted = await withStore(flags, (store) =>
        store.adopt({ schema: fromSchema, table: fromTable, key, topic }),
      );
      console.log(`took ${String(adopted)} messages over`);
    });
}

function destinations(): Command {
  return databaseOptions(new Command('destinations'))
    .description('the state of every destination, as JSON, one a line')
    .action(async (flags: DatabaseFlags) => {
      for (const state of await withStore(flags, (store) => store.destinations())) console.log(JSON.stringify(state));
    });
}

function addDestination(): Command {
  return databaseOptions(new Command('add-destination'))
    .description('add a destination, for which relays can then be started')
    .argument('<name>', 'its name', nameOf)
    .option(
      '--from <where>',
      'what it publishes: from the beginning, the end, or a time on (with --addressed: the end)',
      whereFrom,
    )
    .addOption(
      new Option('--topics <topics...>', 'only these topics (default: all)').argParser(listed).conflicts('addressed'),
    )
    .option('--addressed', 'only messages that are for it alone')
    .option(
      '--forget-after <ms>',
      'how long cleaning waits for it while it has no relay (default: for ever)',
      wholeNumber,
    )
    .action(
      async (
        name: string,
        {
          addressed = false,
          from = addressed ? 'end' : undefined,
          topics = addressed ? [] : undefined,
          forgetAfter,
          ...flags
        }: DatabaseFlags & Partial<AddDestinationOptions> & { addressed?: boolean },
      ) => {
        if (from === undefined)
          throw new MessengerError('INVALID_OPTION', 'say where it begins, with --from, or --addressed');
        await withStore(flags, (store) => store.addDestination(name, { from, topics, forgetAfter }));
        console.log(`added ${JSON.stringify(name)}: start a relay with the option destination`);
      },
    );
}

function removeDestination(): Command {
  return databaseOptions(new Command('remove-destination'))
    .description('remove a destination that no relay works on, and all that is known of it')
    .argument('<name>', 'its name', nameOf)
    .option('--discard', 'also with messages that it has not published')
    .action(async (name: string, { discard, ...flags }: DatabaseFlags & { discard?: boolean }) => {
      const gone = await withStore(flags, (store) => store.removeDestination(name, { discard }));
      const pending = `${gone.morePending ? 'more than ' : ''}${String(gone.pending)}`;
      console.log(
        `removed ${JSON.stringify(name)}, and with it ${pending} messages that it had not published, ${String(gone.waiting)} that waited to be tried again, ${String(gone.dead)} dead letters`,
      );
    });
}

/** The flags of a `FailedSelection`. */
function selecting(command: Command): Command {
  return databaseOptions(command)
    .option('--destination <name>', "whose (default: 'default')", nameOf)
    .option('--ids <ids...>', 'only these message ids', listed)
    .option('--key <key>', 'only of this key', nameOf)
    .option('--topic <topic>', 'only of this topic', nameOf)
    .option('--state <state>', 'only dead, or only blocked ones', nameOf)
    .option('--error <text>', 'only those whose error contains this', nameOf)
    .option('--since <time>', 'only those given up at this time or later', time)
    .option('--until <time>', 'only those given up before this time', time);
}

function deadLetters(): Command {
  return selecting(new Command('dead-letters'))
    .description('what was given up, as JSON, one a line, payloads as text')
    .option('--limit <number>', 'how many at most (default: 100)', wholeNumber)
    .option('--after <seq>', 'only those behind this one', wholeNumber)
    .action(async ({ url, schema, tablePrefix, jsonPayload, ...options }: DatabaseFlags & FailedSelection) => {
      const letters = await withStore(given({ url, schema, tablePrefix, jsonPayload }), (store) =>
        store.deadLetters(options),
      );
      for (const { message, ...rest } of letters) {
        const payload = new TextDecoder().decode(message.payload);
        const { id, topic, key, metadata, at } = message;
        console.log(JSON.stringify({ ...rest, message: { id, topic, key, metadata, at, payload } }));
      }
    });
}

function requeue(): Command {
  return changing('requeue', 'have what was given up tried again, in order', 'requeued', (store, selection) =>
    store.requeue(selection),
  );
}

function discard(): Command {
  return changing('discard', 'delete what was given up, for ever', 'deleted', (store, selection) =>
    store.discard(selection),
  );
}

type Change = (store: Parameters<Parameters<typeof withStore>[1]>[0], selection: FailedSelection) => Promise<number>;

function changing(name: string, description: string, done: string, change: Change): Command {
  return selecting(new Command(name))
    .description(`${description}, also while relays run`)
    .option('--all', 'all of the destination')
    .action(async ({ url, schema, tablePrefix, jsonPayload, ...selection }: DatabaseFlags & FailedSelection) => {
      const count = await withStore(given({ url, schema, tablePrefix, jsonPayload }), (store) =>
        change(store, selection),
      );
      console.log(`${done} ${String(count)} messages`);
    });
}

/** Only the flags that were given: an option that is there and undefined is one too many for the type checker. */
function given(flags: { [Flag in keyof DatabaseFlags]: DatabaseFlags[Flag] | undefined }): DatabaseFlags {
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
}

/** One value more of an option that takes several. */
function listed(value: string, values: readonly string[] = []): string[] {
  return [...values, nameOf(value)];
}

function whereFrom(text: string): AddDestinationOptions['from'] {
  return text === 'beginning' || text === 'end' ? text : time(text);
}

function time(text: string): Date {
  const value = new Date(text);
  if (Number.isNaN(value.getTime())) throw new InvalidArgumentError('must be a time, such as 2026-01-31T12:00:00Z.');
  return value;
}

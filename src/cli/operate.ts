import { Command } from 'commander';
import { rolesScript, type RolesOptions } from '../stores/postgres/index.js';
import { databaseOptions, withStore, type DatabaseFlags } from './database.js';
import { addDestination, destinations, removeDestination } from './destinations.js';
import { deadLetters, discard, parked, requeue } from './failed.js';
import { nameOf, only, wholeNumber } from './values.js';

const TABLES = ['schema', 'tablePrefix'] as const;
const ROLES = ['writer', 'relay', 'consumer', 'migrator'] as const;

/** The operator commands. Each command calls one function of the store, and prints the result. */
export function operatorCommands(): Command[] {
  return [
    ...[repartition(), roles(), importGo()],
    ...[destinations(), addDestination(), removeDestination()],
    ...[parked(), deadLetters(), requeue(), discard()],
  ];
}

function repartition(): Command {
  return databaseOptions(new Command('repartition'))
    .description('change the number of partitions that the keys are spread over; stop all relays first')
    .argument('<partitions>', 'how many: 1 to 1,024', wholeNumber)
    .action(async (partitions: number, flags: DatabaseFlags) => {
      await withStore(flags, (store) => store.admin.repartition(partitions));
      console.log(`${String(partitions)} partitions: set the partitions option of every store to this number`);
    });
}

function roles(): Command {
  return databaseOptions(new Command('roles'))
    .description('print who has more privileges than the roles need, or the SQL for the roles; changes nothing')
    .option('--sql', 'print the SQL for the writer, relay, consumer and migrator roles')
    .option('--writer <role>', 'stores messages (default: messenger_writer)', nameOf)
    .option('--relay <role>', 'runs relays, and cleans (default: messenger_relay)', nameOf)
    .option('--consumer <role>', 'receives each message once (default: messenger_consumer)', nameOf)
    .option('--migrator <role>', 'owns the tables (default: messenger_migrator)', nameOf)
    .action(async (flags: DatabaseFlags & RolesOptions & { sql?: boolean }) => {
      if (flags.sql === true) {
        process.stdout.write(rolesScript(only(flags, ...TABLES, ...ROLES)));
        return;
      }
      const excess = await withStore(only(flags, 'url', ...TABLES), (store) =>
        store.admin.excessGrants(only(flags, ...ROLES)),
      );
      for (const { grantee, grant, revoke } of excess) console.log(`-- ${grantee} holds ${grant}\n${revoke};`);
      if (excess.length === 0)
        console.log('-- nobody has more privileges than the roles need: pass --sql to print the SQL for the roles');
    });
}

function importGo(): Command {
  return databaseOptions(new Command('import-go'))
    .description("import the unpublished messages of the Go module's table; run it again to import later ones")
    .option('--from-schema <name>', "the schema of the table (default: 'public')", nameOf)
    .option('--from-table <name>', "the name of the table (default: 'messages')", nameOf)
    .option('--key <name>', 'the metadata key whose value becomes the key', nameOf)
    .option('--topic <name>', 'the metadata key whose value becomes the topic', nameOf)
    .action(async ({ fromSchema, fromTable, key, topic, ...flags }: DatabaseFlags & Record<string, string>) => {
      const imported = await withStore(flags, (store) =>
        store.admin.importFromGo({ schema: fromSchema, table: fromTable, key, topic }),
      );
      console.log(`imported ${String(imported)} messages`);
    });
}

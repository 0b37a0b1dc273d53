import { Command, Option } from 'commander';
import { MessengerError } from '../core/errors.js';
import type { AddDestinationOptions, DestinationState } from '../core/contracts/admin.js';
import { unknownDestination } from '../core/contracts/admin-options.js';
import { confirm, note } from './confirm.js';
import { databaseOptions, withAdmin, type DatabaseFlags } from './database.js';
import { duration, listed, nameOf, time } from './values.js';

interface RemoveFlags {
  discard?: boolean;
  yes?: boolean;
}

export function destinations(): Command {
  return databaseOptions(new Command('destinations'))
    .description('print the state of every destination, or of the named ones, as JSON, one per line')
    .argument('[names...]', 'only these', listed)
    .action(async (names: string[], flags: DatabaseFlags) => {
      const all = await withAdmin(flags, (admin) => admin.destinations());
      for (const name of names) find(all, name);
      const shown = names.length === 0 ? all : all.filter(({ name }) => names.includes(name));
      for (const state of shown) console.log(JSON.stringify(state));
      for (const state of shown) for (const advice of adviceOn(state)) note(advice);
      if (all.length === 0)
        note('no message is stored, and no relay has run yet: the first relay adds the `default` destination');
    });
}

export function addDestination(): Command {
  return databaseOptions(new Command('add-destination'))
    .description('add a destination, so that relays can be started for it')
    .argument('<name>', 'its name', nameOf)
    .option(
      '--from <where>',
      'where publishing starts: beginning, end, a time, or how long ago, such as 7d (with --addressed: end)',
      whereFrom,
    )
    .addOption(
      new Option('--topics <topics...>', 'only these topics (default: all)').argParser(listed).conflicts('addressed'),
    )
    .option('--addressed', 'only messages that are addressed to it')
    .option(
      '--forget-after <duration>',
      'how long cleaning waits for it while it has no relay, such as 7d (default: for ever)',
      duration,
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
          throw new MessengerError('INVALID_OPTION', 'say where the destination begins: pass --from or --addressed');
        await withAdmin(flags, (admin) => admin.addDestination(name, { from, topics, forgetAfter }));
        console.log(`added ${JSON.stringify(name)}: start a relay with this name as its destination option`);
      },
    );
}

export function removeDestination(): Command {
  return databaseOptions(new Command('remove-destination'))
    .description('remove a destination that no relay serves, and all data about it')
    .argument('<name>', 'its name', nameOf)
    .option('--discard', 'even if it has unpublished messages')
    .option('--yes', 'with --discard: do not ask')
    .action(async (name: string, { discard = false, yes = false, ...flags }: DatabaseFlags & RemoveFlags) => {
      const gone = await withAdmin(flags, async (admin) => {
        if (discard && !yes) await askFor(find(await admin.destinations(), name));
        return admin.removeDestination(name, { discard });
      });
      const pending = `${gone.morePending ? 'more than ' : ''}${String(gone.pending)}`;
      console.log(
        `removed ${JSON.stringify(name)} with ${pending} unpublished messages, ${String(gone.parked)} parked messages and ${String(gone.dead)} dead letters`,
      );
    });
}

async function askFor({ name, pending, morePending, parked, dead }: DestinationState): Promise<void> {
  const messages = pending + parked + dead;
  if (messages === 0 && !morePending) return;
  const count = `${morePending ? 'more than ' : ''}${String(messages)}`;
  await confirm(
    `permanently remove destination ${JSON.stringify(name)} with ${count} messages that it has not published`,
    false,
  );
}

/** @throws MessengerError `UNKNOWN_DESTINATION`. The error lists the destinations that exist. */
function find(states: readonly DestinationState[], wanted: string): DestinationState {
  const found = states.find(({ name }) => name === wanted);
  if (found) return found;
  throw unknownDestination(
    wanted,
    states.map(({ name }) => name),
  );
}

/** Returns advice on what an operator can do about a state that needs attention. */
function adviceOn(state: DestinationState): string[] {
  const name = JSON.stringify(state.name);
  const flag = state.name === 'default' ? '' : ` --destination ${state.name}`;
  const option = state.name === 'default' ? '' : `, { destination: ${name} }`;
  const pending = `${state.morePending ? 'more than ' : ''}${String(state.pending)}`;
  const advice: string[] = [];
  if (state.pending > 0 && state.relays === 0 && state.held === 0) {
    const since = state.activeAt === null ? 'no relay has run yet' : 'no relay is running';
    advice.push(
      `${name}: ${since}, and ${pending} messages are waiting to be published: start a relay with new Messenger(store, publisher${option}).start()`,
    );
  }
  if (state.parked > 0) {
    advice.push(`${name}: ${String(state.parked)} messages are parked: messenger parked${flag} lists them`);
  }
  const given = state.dead + state.blocked;
  if (given > 0) {
    advice.push(
      `${name}: ${String(given)} messages are dead letters or blocked: messenger dead-letters${flag} lists them, and messenger requeue makes relays retry them`,
    );
  }
  return advice;
}

function whereFrom(text: string): AddDestinationOptions['from'] {
  return text === 'beginning' || text === 'end' ? text : time(text);
}

import { Command } from 'commander';
import type { RebasedDestination, RebaseResult } from '../stores/postgres/index.js';
import { databaseOptions, withStore, type DatabaseFlags } from './database.js';
import { nameOf } from './values.js';

interface RebaseFlags extends DatabaseFlags {
  environment?: string;
}

/** `messenger rebase`: continues from a restored dump, a logical copy or a clone. */
export function rebaseCommand(): Command {
  return databaseOptions(new Command('rebase'))
    .description(
      'continue from an outbox that came from another database cluster (a restored dump, a logical copy), or give a clone to another environment. Stop all its relays first',
    )
    .option('--environment <name>', 'the environment that the outbox belongs to from now on', nameOf)
    .action(run);
}

async function run({ environment, ...flags }: RebaseFlags): Promise<void> {
  const result = await withStore(flags, (store) =>
    store.admin.rebase(environment === undefined ? {} : { environment }),
  );
  for (const line of inWords(result, flags)) console.log(line);
}

function inWords({ moved, destinations, environment }: RebaseResult, { schema = 'messenger' }: RebaseFlags): string[] {
  return [
    moved
      ? `schema ${schema} came from another cluster, and now belongs to this one: relays can be started`
      : `schema ${schema} belongs to this cluster: nothing to rebase`,
    ...(moved && destinations.length === 0
      ? ['no destination has published from it, so all its messages will be published']
      : []),
    ...destinations.map(oneInWords),
    ...(environment === undefined ? [] : [`it belongs to the environment ${environment}`]),
  ];
}

function oneInWords({ destination, undelivered, first, last, parked }: RebasedDestination): string {
  const range = undelivered === 0 ? '' : ` (seq ${String(first)} to ${String(last)})`;
  const others = parked === 0 ? '' : ` and ${String(parked)} parked messages`;
  const again = undelivered + parked === 0 ? '' : '; those published after the copy was made will be published again';
  return `destination ${destination}: ${String(undelivered)} messages${range}${others} will be published${again}`;
}

import type { Command } from 'commander';
import { migrateCommand } from './migrate.js';
import { operatorCommands } from './operate.js';
import { rebaseCommand } from './rebase.js';

/** Every command of `messenger`. */
export function commands(): Command[] {
  return [migrateCommand(), rebaseCommand(), ...operatorCommands()];
}

import { commands as programs } from '../../src/cli/commands.js';

/** The commands of `messenger`, with the names of their options. */
export const commands = new Map(
  programs().map((command) => [command.name(), command.options.map(({ long }) => long ?? '')]),
);

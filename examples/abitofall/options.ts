import { parseArgs } from 'node:util';

/** What the command line says. */
export interface Options {
  /** End by itself, with a verdict. */
  readonly once: boolean;
  /** How many orders to write then. */
  readonly orders: number;
}

const USAGE = `usage: npm run demo -- [--once [--orders N]]

  --once       write a number of orders, wait until they arrived, verify, and end:
               non-zero when a message is lost, or received without its order, or out of order
  --orders N   how many, 1 to 1,000,000 (default 1,000)
  --help       this text

Without --once it runs until Ctrl-C.`;

/** The options, or the end of the process with an explanation. */
export function readOptions(args: string[]): Options {
  try {
    const { values } = parseArgs({
      args,
      options: { once: { type: 'boolean' }, orders: { type: 'string' }, help: { type: 'boolean' } },
    });
    if (values.help === true) {
      console.log(USAGE);
      process.exit(0);
    }
    const { once = false, orders } = values;
    if (orders !== undefined && !once) throw new Error('--orders is for --once');
    return { once, orders: orders === undefined ? 1_000 : wholeNumber(orders) };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= 1_000_000) return value;
  throw new Error(`--orders must be a whole number from 1 to 1000000, got '${text}'`);
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { environment } from '../support/installed.js';

/** A shop of the examples, as a process of its own. */
export type Shop = ReturnType<typeof startShop>;

/** Starts a shop: its main file, and what Node needs to run it, on a database and a free port. */
export function startShop(args: readonly string[], url: string) {
  const child = spawn(process.execPath, args, {
    env: { ...environment, DATABASE_URL: url, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  let errors = '';
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  const reader = createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const ended = once(child, 'close').then(([code]) => code as number | null);

  /** Resolves to the first line that has this in it; rejects when the process ends without. */
  async function printed(text: string): Promise<string> {
    const found = () => lines.find((line) => line.includes(text));
    while (found() === undefined) {
      const code = await Promise.race([once(reader, 'line').then(() => 'running'), ended]);
      if (code !== 'running' && found() === undefined) {
        throw new Error(`ended with ${String(code)}, without ${text}:\n${lines.join('\n')}\n${errors}`);
      }
    }
    return found()!;
  }

  /** Where it listens. */
  const origin = async () => (await printed('listening on ')).replace('listening on ', '');

  return {
    lines,
    printed,
    origin,
    /** The status that an order is answered with. */
    order: async (body: unknown) => {
      const headers = { 'content-type': 'application/json' };
      const answer = await fetch(`${await origin()}/orders`, { method: 'POST', headers, body: JSON.stringify(body) });
      return answer.status;
    },
    /** Tells it to end, and waits until it has. */
    end: async () => {
      child.kill('SIGTERM');
      return { code: await ended, errors };
    },
    kill: () => child.kill('SIGKILL'),
  };
}

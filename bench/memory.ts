import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { row, type Row } from './report.js';
import type { Bench } from './setup.js';

/** The peak memory of a relay that drains the whole log, beside one that drains a tenth of it, each in a process of its own. */
export async function memory(bench: Bench): Promise<Row[]> {
  const { url, stored: messages } = await bench.log();
  const tenth = await peak(url, Math.ceil(messages / 10));
  const all = await peak(url, messages);
  return [row('memory', all / 2 ** 20, 'MiB peak', tenth / 2 ** 20)];
}

async function peak(url: string, messages: number): Promise<number> {
  const script = fileURLToPath(new URL('drain-process.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, script, url, String(messages)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) throw new Error(`the relay's process ended with ${String(code)}`);
  return Number(output);
}

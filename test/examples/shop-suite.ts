import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterEach, describe, expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';

const root = fileURLToPath(new URL('../../examples', import.meta.url));

/** What each shop of the examples does, and how little of it is the outbox. */
export function shopSuite(name: string): void {
  const folder = path.join(root, name);
  let stop: () => void = () => undefined;
  afterEach(() => {
    stop();
  });

  /** The example as its README starts it, and the lines that it prints. */
  function start(url: string) {
    const child = spawn(process.execPath, ['--import', 'tsx', path.join(folder, 'main.ts')], {
      env: { ...process.env, DATABASE_URL: url, PORT: '0' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    stop = () => child.kill('SIGKILL');
    const lines: string[] = [];
    let errors = '';
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    const reader = createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    const ended = once(child, 'close').then(([code]) => code as number | null);
    return {
      lines,
      /** Resolves to the first line that has this in it; rejects when the process ends without. */
      printed: async (text: string): Promise<string> => {
        const found = () => lines.find((line) => line.includes(text));
        while (found() === undefined) {
          const code = await Promise.race([once(reader, 'line').then(() => 'running'), ended]);
          if (code !== 'running' && found() === undefined) {
            throw new Error(`ended with ${String(code)}, without ${text}:\n${lines.join('\n')}\n${errors}`);
          }
        }
        return found()!;
      },
      end: async () => {
        child.kill('SIGTERM');
        return { code: await ended, errors };
      },
    };
  }

  describe(`examples/${name}`, () => {
    it('publishes what was committed, nothing of what was rolled back, and ends when it is told to', async () => {
      const url = await newDatabase(inject('postgres')[17]);
      const shop = start(url);
      const at = (await shop.printed('listening on ')).replace('listening on ', '');
      const post = async (body: unknown) => {
        const response = await fetch(`${at}/orders`, { method: 'POST', body: JSON.stringify(body) });
        return response.status;
      };
      const orders = [
        { id: 'order-1', item: 'table', pieces: 1 },
        { id: 'order-2', item: 'table', pieces: 2 },
        { id: 'order-3', item: 'table', pieces: 1 },
      ] as const;

      expect(await post(orders[0])).toBe(201);
      await shop.printed('order-1');
      expect(await post(orders[1])).toBe(409);
      expect(await post({ ...orders[2], pieces: 'one' })).toBe(400);
      // Of the same key: what the one before it had left would come first.
      expect(await post(orders[2])).toBe(201);
      await shop.printed('order-3');

      expect(await shop.end()).toEqual({ code: 0, errors: '' });
      expect(shop.lines.slice(1)).toEqual(
        [orders[0], orders[2]].map((order) => `published order.placed ${JSON.stringify(order)}`),
      );
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const { rows } = await client.query('SELECT id FROM orders ORDER BY id');
      await client.end();
      expect(rows).toEqual([{ id: 'order-1' }, { id: 'order-3' }]);
    });

    it('has an outbox of fifteen lines at most', async () => {
      const files = (await readdir(folder)).filter((file) => file.endsWith('.ts'));
      const lines: string[] = [];
      for (const file of files) {
        const text = (await readFile(path.join(folder, file), 'utf8')).split('\n').filter((line) => line.trim() !== '');
        // All of its own file, and elsewhere whatever has to do with it.
        lines.push(...(file === 'outbox.ts' ? text : text.filter((line) => OUTBOX.test(line))));
      }
      expect(lines.some((line) => line.includes('outbox.send('))).toBe(true);
      expect(lines.some((line) => line.includes('outbox.relay('))).toBe(true);
      expect(lines.length, lines.join('\n')).toBeLessThanOrEqual(15);
    });
  });
}

const OUTBOX = /^(?!\s*(\/\/|\/?\*)).*\b(outbox|store|relay)\b/;

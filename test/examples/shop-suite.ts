import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterEach, describe, expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { startShop, type Shop } from './shop.js';

const root = fileURLToPath(new URL('../../examples', import.meta.url));

/** What is particular to a shop. */
export interface Particulars {
  /** What Node is told to run. @default the example's main.ts, by tsx */
  readonly run?: () => readonly string[];
  /** What it prints once an order is published. @default nothing */
  readonly handled?: (order: { readonly id: string }) => string[];
  /** Files of what the other shops do not do: handle messages, and show the relay's health. @default none */
  readonly beyond?: readonly string[];
}

/** What each shop of the examples does, and how little of it is the outbox. */
export function shopSuite(name: string, { run, handled = () => [], beyond = [] }: Particulars = {}): void {
  const folder = path.join(root, name);
  let shop: Shop | undefined;
  afterEach(() => {
    shop?.kill();
  });

  describe(`examples/${name}`, () => {
    it('publishes what was committed, nothing of what was rolled back, and ends when it is told to', async () => {
      const url = await newDatabase(inject('postgres')[17]);
      shop = startShop(run?.() ?? ['--import', 'tsx', path.join(folder, 'main.ts')], url);
      const orders = [
        { id: 'order-1', item: 'table', pieces: 1 },
        { id: 'order-2', item: 'table', pieces: 2 },
        { id: 'order-3', item: 'table', pieces: 1 },
      ] as const;

      expect(await shop.order(orders[0])).toBe(201);
      await shop.printed('order-1');
      expect(await shop.order(orders[1])).toBe(409);
      expect(await shop.order({ ...orders[2], pieces: 'one' })).toBe(400);
      // Of the same key: what the one before it had left would come first.
      expect(await shop.order(orders[2])).toBe(201);
      await shop.printed('order-3');

      expect(await shop.end()).toEqual({ code: 0, errors: '' });
      expect(shop.lines.slice(1)).toEqual(
        [orders[0], orders[2]].flatMap((order) => [
          `published order.placed ${JSON.stringify(order)}`,
          ...handled(order),
        ]),
      );
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const { rows } = await client.query('SELECT id FROM orders ORDER BY id');
      await client.end();
      expect(rows).toEqual([{ id: 'order-1' }, { id: 'order-3' }]);
    });

    it('has an outbox of fifteen lines at most', async () => {
      // broker.ts stands for the client of a broker, which an application has with or without an outbox.
      const isCounted = (file: string) => /(?<!\.test)\.ts$/.test(file) && ![...beyond, 'broker.ts'].includes(file);
      const lines: string[] = [];
      for (const file of (await readdir(folder)).filter(isCounted)) {
        const text = (await readFile(path.join(folder, file), 'utf8')).split('\n').filter((line) => line.trim() !== '');
        // All of its own file, and elsewhere whatever has to do with it.
        lines.push(...(file === 'outbox.ts' ? text : text.filter((line) => OUTBOX.test(line))));
      }
      for (const needed of SHOWN) expect(lines.join('\n')).toMatch(needed);
      expect(lines.length, lines.join('\n')).toBeLessThanOrEqual(15);
    });
  });
}

const OUTBOX = /^(?!\s*(\/\/|\/?\*)).*(\b(outbox\w*|store|relay)\b|\.send\()/i;
/** What must be among the lines: that the count sees it. */
const SHOWN = [/\.send\(/, /\brelay\b/, /\bmigrate\(/];

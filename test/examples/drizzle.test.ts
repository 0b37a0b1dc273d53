import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, inject, test } from 'vitest';
import { newDatabase } from '../support/database.js';

const folder = new URL('../../examples/drizzle/', import.meta.url);

test('the outbox is at most fifteen lines of the application', () => {
  const isCode = (line: string) => line.trim() !== '' && !line.trim().startsWith('//');
  const lines = readdirSync(folder)
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const code = readFileSync(new URL(name, folder), 'utf8').split('\n').filter(isCode);
      return name === 'outbox.ts' ? code : code.filter((line) => line.endsWith('// outbox'));
    });
  expect(lines).toContain('await outbox.migrate(); // outbox');
  expect(lines.length).toBeLessThanOrEqual(15);
});

test('a shop on Drizzle publishes what is committed, and nothing of what is rolled back', async () => {
  const child = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('main.ts', folder))], {
    env: { ...process.env, DATABASE_URL: await newDatabase(inject('postgres')[17]) },
  });
  let output = '';
  const closed = once(child, 'close');
  const printed = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (output.includes(text)) resolve();
      };
      child.stdout.on('data', look);
      look();
      void closed.then(() => {
        reject(new Error(`ended without ${text}:\n${output}`));
      });
    });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  try {
    await printed('listening on ');
    const { port } = JSON.parse(/listening on (.*)/.exec(output)?.[1] ?? '') as { port: number };
    const order = async (body: unknown) =>
      (await fetch(`http://127.0.0.1:${port}/orders`, { method: 'POST', body: JSON.stringify(body) })).status;
    expect(await order({ id: 'order-1', total: 42 })).toBe(201);
    await printed('published order.created of order-1: {"id":"order-1","total":42}');
    // Its message was stored before the insert failed.
    expect(await order({ id: 'order-2', total: -1 })).toBe(409);
    expect(await order({ id: 'order-3' })).toBe(400);
    expect(await order({ id: 'order-4', total: 1 })).toBe(201);
    await printed('published order.created of order-4');
    expect(output).not.toContain('published order.created of order-2');
    child.kill('SIGTERM');
    expect((await closed)[0]).toBe(0);
  } finally {
    child.kill('SIGKILL');
  }
});

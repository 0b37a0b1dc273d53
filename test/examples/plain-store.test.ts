import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const tsx = createRequire(import.meta.url).resolve('tsx/cli');
const example = fileURLToPath(new URL('../../examples/plain-store/main.ts', import.meta.url));

test('a store of three methods works: in order per key, past what fails, and nothing is lost', async () => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [tsx, example]);
  expect(stderr).toBe('');
  const lines = stdout.trim().split('\n');
  const published = lines.filter((line) => line.startsWith('published: '));
  // The message that is refused for ever delays nobody, its own key neither.
  expect(published).toContain('published: order 2 cancelled');
  expect(published.filter((line) => line.includes('order 1'))).toEqual([
    'published: order 1 placed',
    'published: order 1 paid',
    'published: order 1 sent',
  ]);
  expect(published).toHaveLength(4);
  expect(lines.filter((line) => line.startsWith('error: ')).map((line) => line.replace(/ in \d+ ms/, ''))).toEqual([
    'error: message <id> was not published (attempt 1, next): busy',
    'error: message <id> is a dead letter: refused',
    'error: message <id> was not published (attempt 2, next): busy',
  ]);
  expect(lines.at(-1)).toBe('left: order 2 placed');
});

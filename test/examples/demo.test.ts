import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PostgresStore } from 'messenger-outbox/postgres';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startEngines, type Engines } from '../../examples/abitofall/engines.js';
import { everythingArrived } from '../../examples/abitofall/progress.js';
import { runRelay } from '../../examples/abitofall/relay.js';
import { openShop } from '../../examples/abitofall/shop.js';
import { verify } from '../../examples/abitofall/verify.js';
import { openWarehouse } from '../../examples/abitofall/warehouse.js';
import { findings } from '../support/verifier/judge.js';

interface Demo {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly errors: () => string;
  readonly exit: Promise<[number | null, NodeJS.Signals | null]>;
}

/** A folder with a space in its name, where all files of a demo are. */
let temporary: string;
beforeAll(async () => {
  temporary = await mkdtemp(path.join(tmpdir(), 'a demo '));
  await chmod(temporary, 0o755);
});
afterAll(() => rm(temporary, { recursive: true, force: true }));

/** What every process of this file's demos has in its environment, and so can be found by. */
const mark = `ABITOFALL_TEST=${String(process.pid)}-${String(Date.now())}`;

/** Starts it with nothing in the environment but what is needed to find Node and this test's files. */
function start(command: string, ...args: string[]): Demo {
  const [name = '', value = ''] = mark.split('=');
  const child = spawn(command, args, {
    detached: true,
    env: { PATH: process.env['PATH'], TMPDIR: temporary, [name]: value },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const texts = ['', ''];
  [child.stdout, child.stderr].forEach((stream, i) => {
    stream.setEncoding('utf8').on('data', (text: string) => (texts[i] = texts[i]! + text));
  });
  return {
    child,
    output: () => texts[0]!,
    errors: () => texts[1]!,
    exit: once(child, 'close') as Demo['exit'],
  };
}

function lastLine(text: string): string | undefined {
  return text.trimEnd().split('\n').at(-1);
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 40_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Processes of a demo, whichever their parent. */
async function processes(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    const environment = /^\d+$/.test(pid) ? await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '') : '';
    if (environment.split('\0').includes(mark)) found.push(await readFile(`/proc/${pid}/cmdline`, 'utf8'));
  }
  return found;
}

/** Addresses on which something listens on a port, as the kernel writes them. */
async function listeners(port: number): Promise<string[]> {
  const sockets = `${await readFile('/proc/net/tcp', 'utf8')}\n${await readFile('/proc/net/tcp6', 'utf8')}`;
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return sockets
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${hex}`) && state === '0A')
    .map(([, local]) => local!.split(':')[0]!);
}

async function isRefused(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  return new Promise((resolve) => {
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', () => {
      resolve(true);
    });
  });
}

async function expectNothingLeft(ports: readonly number[]): Promise<void> {
  expect(await processes()).toEqual([]);
  // tsx keeps what it compiled.
  expect((await readdir(temporary)).filter((name) => !/^tsx-|^node-compile-cache/.test(name))).toEqual([]);
  for (const port of ports) expect(await isRefused(port)).toBe(true);
}

function portsIn(output: string): number[] {
  return [...output.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => Number(port));
}

describe('npm run demo', () => {
  it('--once writes, verifies, and ends with the verdict as its last line', async () => {
    const demo = start('npm', 'run', 'demo', '--', '--once', '--orders', '300');
    const [code] = await demo.exit;
    expect(code, demo.output() + demo.errors()).toBe(0);
    expect(lastLine(demo.output())).toBe('stored 300 published 300 received 300 lost 0 phantom 0');
    expect(demo.output()).toMatch(/^stored \d+ {2}published \d+ {2}received \d+ {2}backlog \d+$/m);
    expect(Number(/^(\d+) transactions were rolled back$/m.exec(demo.output())?.[1])).toBeGreaterThan(0);
    await expectNothingLeft(portsIn(demo.output()));
  });

  it('runs until SIGINT, prints what arrives, and leaves nothing behind', async () => {
    // Not through npm, whose shell ends by the signal itself when a terminal sends it to all of them.
    const demo = start(process.execPath, '--import', 'tsx', 'examples/abitofall/main.ts');
    const arrivals = () => demo.output().match(/^ {2}arrived: order\.created customer-\d+ #\d+/gm)?.length ?? 0;
    await until(() => arrivals() >= 3, demo.output() + demo.errors());
    const ports = portsIn(demo.output());
    expect(ports).toHaveLength(2);
    for (const port of ports) expect(await listeners(port)).toEqual(['0100007F']);
    expect(await processes()).not.toEqual([]);

    // As a terminal does: to the whole group.
    process.kill(-demo.child.pid!, 'SIGINT');
    const [code] = await demo.exit;
    expect(code, demo.errors()).toBe(0);
    expect(demo.errors()).toBe('');
    expect(lastLine(demo.output())).toBe('stopped');
    await expectNothingLeft(ports);
  });

  it('removes its engines when it is killed', async () => {
    const demo = start(process.execPath, '--import', 'tsx', 'examples/abitofall/main.ts');
    await until(() => demo.output().includes('arrived'), demo.errors());
    demo.child.kill('SIGKILL');
    await demo.exit;
    const deadline = Date.now() + 15_000;
    while ((await processes()).length > 0 && Date.now() < deadline) await new Promise((r) => setTimeout(r, 100));
    await expectNothingLeft(portsIn(demo.output()));
  });

  it('says what a flag is that it does not know', async () => {
    const tsx = 'node_modules/.bin/tsx';
    for (const [args, text] of [
      [['--twice'], /--twice[^]*usage: npm run demo/],
      [['--once', '--orders', 'many'], /--orders must be a whole number from 1 to 1000000, got 'many'[^]*usage:/],
      [['--orders', '5'], /--orders is for --once[^]*usage:/],
    ] as const) {
      const demo = start(tsx, 'examples/abitofall/main.ts', ...args);
      expect((await demo.exit)[0]).toBe(2);
      expect(demo.errors()).toMatch(text);
      expect(demo.output()).toBe('');
    }
  });
});

describe('the verifier', () => {
  let engines: Engines;
  let records: pg.Client;
  beforeAll(async () => {
    engines = await startEngines({ withVerifier: true });
    const { databases, sns, sqs, topic, queue } = engines;
    const store = new PostgresStore(databases.shop);
    const shop = await openShop(databases.shop, store);
    const warehouse = await openWarehouse(databases.warehouse);
    const stop = new AbortController();
    const work = [
      runRelay({ store, sns, topic, signal: stop.signal }),
      warehouse.receive({ sqs, queue, showEvery: 1_000, signal: stop.signal }),
    ];
    await shop.write({ orders: 100, pause: 0, signal: stop.signal });
    await everythingArrived(databases, { patience: 10_000, signal: stop.signal });
    stop.abort();
    await Promise.all(work);
    records = new pg.Client({ connectionString: engines.verifier.databases.verifier });
    await records.connect();
  });
  afterAll(async () => {
    await records.end();
    await engines.stop();
  });

  const good = { stored: 100, published: 100, received: 100, lost: 0, phantom: 0, inversions: 0, duplicates: 0 };

  it('finds nothing wrong where nothing is', async () => {
    const { findings, exitCode } = await verify(engines.verifier);
    expect({ ...findings, exitCode }).toMatchObject({ ...good, exitCode: 0 });
  });

  /** Changes something, judges, and changes it back. */
  const tampered = async (database: 'shop' | 'warehouse' | 'records', change: string, back: string) => {
    const client = { ...engines.databases, records }[database];
    await client.query(change);
    try {
      return await verify({ ...engines.verifier, queue: undefined });
    } finally {
      await client.query(back);
    }
  };

  it.each([
    [
      'a message that the consumer did not get',
      'warehouse',
      'CREATE TABLE kept AS SELECT * FROM arrivals; DELETE FROM arrivals WHERE n = 50',
      { received: 99, lost: 1, phantom: 0 },
    ],
    [
      'a message that nobody stored',
      'warehouse',
      `CREATE TABLE kept AS SELECT * FROM arrivals; INSERT INTO arrivals (message_id) VALUES ('phantom')`,
      { received: 101, lost: 0, phantom: 1 },
    ],
    [
      'a message that its queue did not get',
      'records',
      'CREATE TABLE kept AS SELECT * FROM arrivals; DELETE FROM arrivals WHERE n = 50',
      { received: 100, lost: 1, phantom: 0 },
    ],
    [
      'a message out of order',
      'records',
      'CREATE TABLE kept AS SELECT * FROM arrivals; UPDATE arrivals SET sequence = 1000 - sequence',
      { lost: 0, phantom: 0, inversions: expect.any(Number) as number },
    ],
  ] as const)('finds %s', async (_name, database, change, wrong) => {
    const back = `TRUNCATE arrivals; INSERT INTO arrivals OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept`;
    const { findings, exitCode } = await tampered(database, change, back);
    expect({ ...findings, exitCode }).toMatchObject({ ...wrong, exitCode: 1, ok: false });
    if ('inversions' in wrong) expect(findings.inversions).toBeGreaterThan(0);
  });

  it('finds an order whose transaction left no message', async () => {
    const { findings, exitCode } = await tampered(
      'shop',
      `CREATE TABLE kept AS SELECT * FROM orders LIMIT 1; INSERT INTO orders VALUES ('nothing', 'customer-1', 9999, 1)`,
      `DELETE FROM orders WHERE message_id = 'nothing'; DROP TABLE kept`,
    );
    expect({ ...findings, exitCode }).toMatchObject({ lost: 1, phantom: 0, exitCode: 1 });
  });

  it('finds a message whose order was rolled back', async () => {
    const { findings, exitCode } = await tampered(
      'shop',
      'CREATE TABLE kept AS SELECT * FROM orders LIMIT 1; DELETE FROM orders USING kept WHERE orders.message_id = kept.message_id',
      'INSERT INTO orders SELECT * FROM kept; DROP TABLE kept',
    );
    expect({ ...findings, exitCode }).toMatchObject({ stored: 100, lost: 0, phantom: 1, exitCode: 1 });
  });

  it('finds what the store does not hold to be published', async () => {
    const { findings, exitCode } = await tampered(
      'shop',
      `CREATE TABLE kept AS SELECT * FROM messenger.cursors; UPDATE messenger.cursors SET from_snapshot = '1:1:', to_snapshot = NULL`,
      `UPDATE messenger.cursors c SET from_snapshot = kept.from_snapshot, to_snapshot = kept.to_snapshot
        FROM kept WHERE kept.partition = c.partition; DROP TABLE kept`,
    );
    expect({ ...findings, exitCode }).toMatchObject({ stored: 100, published: 0, lost: 0, exitCode: 1 });
  });

  it('cannot tell, and says so, where it finds no tables', async () => {
    const { databases } = engines.verifier;
    const swapped = { ...engines.verifier, queue: undefined, databases: { ...databases, shop: databases.verifier } };
    await expect(verify(swapped)).rejects.toThrow('the verifier failed (exit code 2)');
  });
});

describe('the judgement', () => {
  const committed = [
    { id: 'a1', key: 'a', place: 1 },
    { id: 'a2', key: 'a', place: 2 },
    { id: 'a3', key: 'a', place: 3 },
    { id: 'b1', key: 'b', place: 1 },
  ];
  const log = committed.map(({ id }) => id);
  const judged = (queue: string[], consumer = log) => findings({ log, published: 4, committed, queue, consumer });

  it('takes the first arrivals for the order, and any order between keys', () => {
    expect(judged(['b1', 'a1', 'a2', 'a1', 'a3'])).toMatchObject({ ok: true, inversions: 0, duplicates: 1 });
    expect(judged(['a2', 'a1', 'a3', 'b1'])).toMatchObject({ ok: false, inversions: 1 });
    expect(judged(['a3', 'a1', 'a2', 'b1'])).toMatchObject({ ok: false, inversions: 2 });
  });

  it('takes the worse of the queue and the consumer', () => {
    expect(judged(log, ['a1'])).toMatchObject({ ok: false, received: 1, lost: 3 });
    expect(judged(['a1'], log)).toMatchObject({ ok: false, received: 4, lost: 3 });
    expect(judged([...log, 'x'])).toMatchObject({ ok: false, phantom: 1, lost: 0 });
  });
});

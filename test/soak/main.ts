/**
 * Several relays on one outbox while everything that can break does: `npm run soak -- --minutes N`.
 *
 * Relays are killed, paused beyond their lease, stopped and started; PostgreSQL is stopped at once and
 * started, an asynchronous replica takes its place, its sessions are cut or carry nothing any more, others take all
 * connections of a pool; the broker is down, hangs, answers late, refuses some of a batch; long transactions stay open:
 * each of them once, then any. At the end the ledger of the writers is held against what the broker acknowledged: exits
 * with 1 when anything was lost, made up, out of order, or changed in the log.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { Pair } from '../faults/pair.js';
import {
  eventually,
  NOTHING,
  Outbox,
  PAGE,
  randomOf,
  seed,
  type RelayProcess,
  type RelaySettings,
} from '../faults/support.js';
import { Wire } from '../faults/wire.js';
import { startPostgres, type EmbeddedPostgres } from '../support/embedded-postgres.js';
import { startPgBouncer } from '../support/pgbouncer.js';

const RELAYS = 3;

interface Options {
  readonly minutes: number;
  readonly pooler: boolean;
}

/** Something that goes wrong, and is over when it resolves. */
type Fault = (chaos: Chaos) => Promise<void>;

/** What faults are done to. */
interface Chaos {
  readonly outbox: Outbox;
  /** What is between the relays and the server. */
  readonly wire: Wire;
  /** The one that answers now. */
  server: EmbeddedPostgres;
  readonly random: () => number;
  /** The relays that faults may end. One more goes on to the end. */
  readonly relays: RelayProcess[];
  /** What was committed, and did not come to the replica that took over: published or not, it is nowhere any more. */
  readonly gone: Set<string>;
  start(settings?: RelaySettings): void;
}

const FAULTS: Record<string, Fault> = {
  'a relay is killed': async (chaos) => {
    await anyOf(chaos).ended('SIGKILL');
    chaos.start();
  },
  'a relay is stopped and another one started': async (chaos) => {
    await anyOf(chaos).ended('SIGTERM');
    chaos.start();
  },
  'a relay more': (chaos) => {
    chaos.start();
    return Promise.resolve();
  },
  'a relay is paused beyond its lease': async (chaos) => {
    const relay = chaos.relays[Math.floor(chaos.random() * chaos.relays.length)];
    relay?.signal('SIGSTOP');
    await sleep(1_000 + chaos.random() * 1_500);
    relay?.signal('SIGCONT');
  },
  'sessions are cut': async ({ outbox, random }) => {
    for (let n = 0; n < 10; n++) {
      await outbox
        .sql(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name LIKE 'relay-%' AND random() < 0.5`,
        )
        .catch(() => undefined);
      await sleep(random() * 100);
    }
  },
  'PostgreSQL is stopped at once': async ({ server, random }) => {
    await server.stop('immediate');
    await sleep(random() * 500);
    await server.start();
  },
  'an asynchronous replica is promoted': async (chaos) => {
    const { outbox, server, random } = chaos;
    const begunAt = performance.now();
    const pair = await Pair.of(17, server);
    chaos.server = pair.standby;
    await sleep(500 + random() * 1_000);
    await pair.replace();
    const stoppedAt = performance.now();
    await server.remove();
    await pair.promote();
    const left = new Set<unknown>();
    await eventually('the replica answers', async () => {
      // A pooler says for a while that the server is still gone.
      const rows = await outbox.sql('SELECT id FROM ledger').catch(() => undefined);
      for (const { id } of rows ?? []) left.add(id);
      return rows !== undefined;
    });
    // All that was committed before is in the clone.
    for (const [id, sentAt] of outbox.commitSentAt)
      if (sentAt > begunAt && sentAt < stoppedAt && !left.has(id)) chaos.gone.add(id);
    outbox.forgetBacklog();
  },
  'connections are half open': async ({ wire, random }) => {
    wire.cut();
    await sleep(random() * 3_000);
    wire.reset();
  },
  'an application takes all connections of its relay': async (chaos) => {
    chaos.start({ hogs: 1_500 });
    await sleep(4_000);
    await chaos.relays.pop()?.ended('SIGTERM');
    chaos.start();
  },
  'the broker is down': async ({ outbox: { broker }, random }) => {
    await broker.close();
    await sleep(random() * 1_000);
    await broker.listen();
  },
  'the broker hangs': async ({ outbox: { broker }, random }) => {
    broker.hold();
    await sleep(random() * 2_000);
    broker.open();
  },
  'the broker answers late': async ({ outbox: { broker }, random }) => {
    broker.delay = () => random() * 1_500;
    await sleep(2_000);
    broker.delay = () => 0;
  },
  'the broker refuses some of every batch': async ({ outbox, random }) => {
    const { broker } = outbox;
    broker.verdict = () => (random() < 0.05 ? 'retryable' : random() < 0.005 ? 'permanent' : null);
    await sleep(2_000);
    broker.verdict = () => null;
    // Dead letters do not come any more.
    outbox.forgetBacklog();
  },
  'a transaction stays open': async ({ outbox, random }) => {
    try {
      const session = await outbox.session();
      await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await session.query('SELECT pg_current_xact_id()');
      await sleep(random() * 3_000);
      await session.query('ROLLBACK');
    } catch {
      // The server was stopped meanwhile.
    }
  },
};

/**
 * A relay that finds no database when it starts ends, as it should: whoever keeps it running starts it
 * again. Of the others, all have to end well.
 */
function startAgain(chaos: Chaos): void {
  for (const relay of chaos.relays.filter(foundNoDatabase)) {
    chaos.relays.splice(chaos.relays.indexOf(relay), 1);
    chaos.start();
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item);
}

function foundNoDatabase({ end, events }: RelayProcess): boolean {
  return end === 3 && events.some(({ message }) => message.includes('the datastore cannot be reached'));
}

function anyOf({ relays, random }: Chaos): RelayProcess {
  const [relay] = relays.splice(Math.floor(random() * relays.length), 1);
  if (relay === undefined) throw new Error('no relay is left');
  return relay;
}

async function soak({ minutes, pooler }: Options): Promise<boolean> {
  console.log(`FAULTS_SEED=${String(seed)}`);
  const server = await startPostgres(17, { wal_writer_delay: 200 });
  const bouncer = pooler ? await startPgBouncer(server.port) : undefined;
  const url = bouncer ? bouncer.through(server.url()) : server.url();
  const wire = await Wire.to(url);
  let chaos: Chaos | undefined;
  let good = false;
  try {
    const settings = {
      url: wire.through(url),
      store: { lease: 1_000 },
      messenger: { cleanUp: 1_000, publishTimeout: 1_000, storeOutageLimit: 60_000 },
    };
    await Outbox.run(url, settings, async (outbox) => {
      chaos = chaosOf(outbox, wire, server);
      good = await run(chaos, minutes);
    });
  } finally {
    await wire.close();
    await bouncer?.remove();
    await (chaos?.server ?? server).remove();
  }
  return good;
}

function chaosOf(outbox: Outbox, wire: Wire, server: EmbeddedPostgres): Chaos {
  let relays = 0;
  const chaos: Chaos = {
    outbox,
    wire,
    server,
    random: randomOf(1_000),
    relays: [],
    gone: new Set(),
    start(settings) {
      if (chaos.relays.length >= RELAYS) void anyOf(chaos).ended('SIGTERM');
      chaos.relays.push(outbox.relay(`relay-${String((relays += 1))}`, settings));
    },
  };
  return chaos;
}

async function run(chaos: Chaos, minutes: number): Promise<boolean> {
  const { outbox, random } = chaos;
  const steady = outbox.relay('relay-steady');
  while (chaos.relays.length < RELAYS - 1) chaos.start();
  await eachHasItsShare(outbox, [steady, ...chaos.relays]);
  outbox.broker.latency = () => random() * 5;
  outbox.startWriting();
  const counts = new Map<string, number>();
  const memory: number[] = [];
  const startedAt = performance.now();
  const total = minutes * 60_000;
  let told = startedAt;
  // Each kind once, in any order, and then any.
  const untried = shuffled(Object.keys(FAULTS), randomOf(1_001));
  for (let now = startedAt; now - startedAt < total || untried.length > 0; now = performance.now()) {
    const names = Object.keys(FAULTS);
    const name = untried.pop() ?? names[Math.floor(random() * names.length)]!;
    counts.set(name, (counts.get(name) ?? 0) + 1);
    startAgain(chaos);
    await FAULTS[name]?.(chaos);
    await sleep(random() * 1_500);
    memory.push(await residentMiB(steady));
    if (performance.now() - told < 10_000) continue;
    told = performance.now();
    console.log(
      `${((told - startedAt) / 60_000).toFixed(1)} of ${String(minutes)} minutes: ${String(outbox.broker.count)} messages, ${String([...counts.values()].reduce((sum, count) => sum + count, 0))} faults, ${String(memory.at(-1))} MiB`,
    );
  }
  await outbox.stopWriting();
  startAgain(chaos);
  const last = [steady, ...chaos.relays];
  // The last one may only just have been started.
  await eachHasItsShare(outbox, last);
  await outbox.drained();
  const left =
    await outbox.sql(`SELECT partition, owner, expires_at > clock_timestamp() AS held, to_snapshot IS NOT NULL AS open,
    (SELECT count(*) FROM messenger.parked p WHERE p.key_hash % 8 = c.partition AND p.dead_at IS NULL)::int AS waiting,
    (SELECT min(next_at) - clock_timestamp() FROM messenger.parked p WHERE p.key_hash % 8 = c.partition)::text AS next,
    (SELECT string_agg(concat_ws(' ', p.key, p.seq, p.reason, p.attempts, p.next_at - clock_timestamp()), '; ') FROM (
       SELECT DISTINCT ON (key) * FROM messenger.parked q WHERE q.key_hash % 8 = c.partition AND q.dead_at IS NULL ORDER BY key, seq) p) AS heads
    FROM messenger.cursors c ORDER BY partition`);
  await Promise.all(last.map((relay) => relay.ended('SIGTERM')));
  const phantom = (await outbox.phantoms()).filter((id) => !chaos.gone.has(id));
  const wrong = { ...(await outbox.wrong()), phantom };

  for (const [name, count] of [...counts].sort(([a], [b]) => a.localeCompare(b)))
    console.log(`  ${String(count)} × ${name}`);
  const settled = memory.slice(Math.floor(memory.length / 2));
  const growth = Math.max(...settled) / Math.max(1, Math.min(...settled));
  console.log(
    `  memory of the relay that went on: ${String(memory[0])} MiB at first, ${String(memory.at(-1))} at last, most ${String(Math.max(...memory))}`,
  );
  const dead = await outbox.dead();
  console.log(
    `soaked for ${String(minutes)} minutes (FAULTS_SEED=${String(seed)}): ${String(outbox.broker.count)} messages acknowledged, ${String(outbox.broker.duplicates().length)} repeated, ${String(dead.length)} dead letters, lost ${String(wrong.lost.length)} phantom ${String(wrong.phantom.length)} out of order ${String(wrong.disordered.length)} changed rows ${String(wrong.changedRows)}`,
  );
  const badEnds = last.filter((relay) => (relay.end !== 0 || relay.stderr !== '') && !foundNoDatabase(relay));
  for (const { end, stderr } of badEnds) console.error(`a relay ended with ${String(end)}: ${stderr}`);
  if (JSON.stringify(wrong) !== JSON.stringify(NOTHING)) console.error(wrong, left);
  if (growth > 2) console.error(`memory is not flat: it grew ${growth.toFixed(1)} times in the second half`);
  return badEnds.length === 0 && growth <= 2 && JSON.stringify(wrong) === JSON.stringify(NOTHING);
}

async function eachHasItsShare(outbox: Outbox, relays: readonly RelayProcess[]): Promise<void> {
  await eventually('each relay has its share', async () => {
    // A pooler says for a while that the server is gone, which has just been started.
    const rows = await outbox.sql(`SELECT count(DISTINCT owner)::int AS n FROM messenger.cursors`).catch(() => []);
    return rows[0]?.['n'] === relays.filter(({ end }) => end === null).length;
  });
}

async function residentMiB({ pid }: RelayProcess): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  return Math.round(Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1] ?? 0) / 1_024);
}

function minutesOf(text: string): number {
  const minutes = Number(text);
  if (!(minutes > 0)) throw new InvalidArgumentError('must be a number of minutes above 0.');
  return minutes;
}

const options = new Command('soak')
  .description(`relays of pages of ${String(PAGE)} messages, and all faults mixed`)
  .option('--minutes <number>', 'how long', minutesOf, 2)
  .option('--pooler', 'through PgBouncer in transaction mode', false)
  .parse()
  .opts<Options>();
if (!(await soak(options))) process.exitCode = 1;

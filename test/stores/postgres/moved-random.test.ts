/** Copies of an outbox at random moments of its work, from which relays continue in another cluster. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { copyLogically, useUpTransactionIds } from '../../support/copies.js';
import { newDatabase } from '../../support/database.js';
import { oldest, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { Outbox } from './moved-support.js';

const seed = Number(process.env['MOVED_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = 5;
const STEPS = 60;
const KEYS = 5;
const DESTINATIONS = ['default', 'other', 'third'];

const clusters: EmbeddedPostgres[] = [];
beforeAll(async () => {
  for (const version of [17, oldest, 17] as const) clusters.push(await startPostgres(version));
  await useUpTransactionIds(clusters[0]!.url(), 20_000);
});
afterAll(() => Promise.all(clusters.map((cluster) => cluster.remove())));

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Work of writers whose transactions overlap, and of relays, step by step. */
class Work {
  readonly #random: () => number;
  readonly #open: pg.Client[] = [];
  #label = 0;
  outbox: Outbox;
  /** Messages that were stored in transactions of their own, one after the other. */
  readonly inOrder: string[] = [];
  /** What the current outbox has published. */
  published = new Map<string, string[]>(DESTINATIONS.map((name) => [name, []]));

  constructor(outbox: Outbox, random: () => number) {
    this.outbox = outbox;
    this.#random = random;
  }

  pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#random() * values.length)]!;
  }

  async step(): Promise<void> {
    const choice = this.#random();
    if (choice < 0.2) {
      this.#open.push(await this.outbox.begin());
    } else if (choice < 0.45 && this.#open.length > 0) {
      await this.outbox.addTo(this.pick(this.#open), ...this.#ids());
    } else if (choice < 0.6 && this.#open.length > 0) {
      await this.#end(this.pick(this.#open));
    } else if (choice < 0.75) {
      const ids = this.#ids();
      await this.outbox.add(...ids);
      this.inOrder.push(...ids);
    } else await this.#relay(this.pick(DESTINATIONS), 1 + Math.floor(this.#random() * 3));
  }

  async end(): Promise<void> {
    while (this.#open.length > 0) await this.#end(this.#open[0]!);
  }

  async drain(): Promise<void> {
    for (const destination of DESTINATIONS) await this.#relay(destination, Infinity);
  }

  async #relay(destination: string, pages: number): Promise<void> {
    const pageSize = 1 + Math.floor(this.#random() * 6);
    this.published.get(destination)!.push(...(await this.outbox.relay({ destination, pages, pageSize })));
  }

  #ids(): string[] {
    return Array.from({ length: 1 + Math.floor(this.#random() * 3) }, () => {
      const key = Math.floor(this.#random() * KEYS);
      return `k${String(key)}:${String((this.#label += 1))}`;
    });
  }

  async #end(client: pg.Client): Promise<void> {
    this.#open.splice(this.#open.indexOf(client), 1);
    await client.query(this.#random() < 0.8 ? 'COMMIT' : 'ROLLBACK');
  }
}

it.each(Array.from({ length: ROUNDS }, (_, round) => round))(
  `publishes once what the copy shows as unpublished, and everything that comes later (round %i, MOVED_SEED=${String(seed)})`,
  async (round) => {
    const random = randomOf(seed * 100 + round);
    const other = (cluster: EmbeddedPostgres) => clusters.filter((each) => each !== cluster);
    let cluster = clusters[round % clusters.length]!;
    const work = new Work(await Outbox.at(await newDatabase(cluster.url())), random);
    let published = new Map<string, string[]>();
    // Moved twice, because the next rebase meets what the first one leaves behind.
    for (let move = 0; move < 2; move++) {
      for (let n = 0; n < STEPS; n++) await work.step();
      const old = work.outbox;
      cluster = work.pick(other(cluster));
      const moved = await Outbox.at(await newDatabase(cluster.url()));
      await copyLogically(await old.session(), moved.pool, { sequence: random() < 0.5 });
      await work.end();
      const rebased = await moved.store.admin.rebase();
      expect(rebased.moved).toBe(true);
      published = new Map(
        DESTINATIONS.map((name) => [name, [...(published.get(name) ?? []), ...work.published.get(name)!]]),
      );
      work.outbox = moved;
      work.published = new Map(DESTINATIONS.map((name) => [name, []]));
      for (const { destination, undelivered } of rebased.destinations) {
        const stored = await moved.pool.query<{ id: string }>('SELECT id FROM messenger.messages ORDER BY seq');
        const done = new Set(published.get(destination));
        expect(stored.rows.filter(({ id }) => !done.has(id))).toHaveLength(undelivered);
      }
    }
    for (let n = 0; n < STEPS / 2; n++) await work.step();
    await work.end();
    await work.drain();
    const { rows } = await work.outbox.pool.query<{ id: string }>('SELECT id FROM messenger.messages ORDER BY seq');
    const stored = rows.map(({ id }) => id);
    expect(stored.length).toBeGreaterThan(50);
    for (const destination of DESTINATIONS) {
      const all = [...(published.get(destination) ?? []), ...work.published.get(destination)!];
      // Nothing is lost or published twice, and nothing that was never committed is published.
      expect(all.toSorted(), destination).toEqual(stored.toSorted());
      for (let key = 0; key < KEYS; key++) {
        const ofKey = (ids: readonly string[]) => ids.filter((id) => id.startsWith(`k${String(key)}:`));
        expect(ofKey(all.filter((id) => work.inOrder.includes(id))), destination).toEqual(
          ofKey(work.inOrder.filter((id) => stored.includes(id))),
        );
      }
    }
  },
);

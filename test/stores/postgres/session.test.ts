/** The plain contract of a PostgreSQL store, with simultaneous calls: they count one after the other. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Message } from '../../../src/core/contracts/message.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { seeded } from '../../core/scripted.js';
import { PostgresStore } from '../../../src/stores/postgres/store.js';
import { createDatabase, inWorld, type World } from './support.js';

/** A store as an application has it, on the tables of a world. */
const storeOf = (world: World): PostgresStore => new PostgresStore(world.pool, { schema: world.names.schema });

const idsOf = (messages: readonly Message[]): string[] => messages.map(({ id }) => id);

/** What the store has left, and what another one sees after it was closed. Both must be the same. */
async function left(world: World, store: PostgresStore): Promise<{ here: string[]; after: string[] }> {
  const here = idsOf(await store.messages(100));
  await store.close();
  const other = storeOf(world);
  const after = idsOf(await other.messages(100));
  await other.close();
  return { here, after };
}

const both = (...ids: readonly string[]) => ({ here: ids, after: ids });

describe.each(outermostVersions)('calls at the same time on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'session');
  });

  const keys: [string, readonly [string, string, string]][] = [
    ['one key', ['k:1', 'k:2', 'k:3']],
    ['different keys', ['a:1', 'b:1', 'c:1']],
    ['no key', ['1', '2', '3']],
  ];
  /** Calls of `published`, by the places of their messages, and the places that are left then. */
  const calls: [string, readonly (readonly number[])[], readonly number[]][] = [
    ['the last and the first', [[2], [0]], [1]],
    ['the first and the last', [[0], [2]], [1]],
    ['the last and the middle', [[2], [1]], [0]],
    ['each, from the end', [[2], [1], [0]], []],
    ['each, in order', [[0], [1], [2]], []],
    ['one twice', [[1], [1]], [0, 2]],
    [
      'some of them in both',
      [
        [1, 2],
        [0, 2],
      ],
      [],
    ],
  ];
  const cases = keys.flatMap(([how, ids]) => calls.map(([what, sets, rest]) => ({ how, ids, what, sets, rest })));

  it.each(cases)('published() of $what, of $how', ({ ids, sets, rest }) =>
    inWorld(async (world) => {
      const store = storeOf(world);
      await world.add(...ids);
      const listed = await store.messages(10);
      expect(idsOf(listed)).toEqual(ids);
      await Promise.all(sets.map((places) => store.published(...places.map((place) => listed[place]!))));
      expect(await left(world, store)).toEqual(both(...rest.map((place) => ids[place]!)));
    }, url),
  );

  it('messages() lists what an earlier published() has left', () =>
    inWorld(async (world) => {
      const store = storeOf(world);
      await world.add('k:1', 'k:2', 'k:3', 'k:4');
      const listed = await store.messages(10);
      const [, between, , last] = await Promise.all([
        store.published(listed[2]!),
        store.messages(10),
        // Of the list that is no longer the last one.
        store.published(listed[0]!).catch((error: unknown) => (error as { code: string }).code),
        store.messages(10),
      ]);
      expect(idsOf(between)).toEqual(['k:1', 'k:2', 'k:4']);
      expect(idsOf(last)).toEqual(['k:1', 'k:2', 'k:4']);
      expect(await left(world, store)).toEqual(both('k:1', 'k:2', 'k:4'));
    }, url));

  it('published() accepts the list that was requested last', () =>
    inWorld(async (world) => {
      const store = storeOf(world);
      await world.add('k:1', 'k:2', 'k:3');
      const [first, second] = await Promise.all([store.messages(10), store.messages(10)]);
      expect(idsOf(second)).toEqual(idsOf(first));
      await expect(store.published(first[0]!)).rejects.toMatchObject({ code: 'UNKNOWN_MESSAGE' });
      await store.published(second[0]!);
      expect(await left(world, store)).toEqual(both('k:2', 'k:3'));
    }, url));

  it('close() waits for earlier calls', () =>
    inWorld(async (world) => {
      const store = storeOf(world);
      await world.add('k:1', 'k:2', 'k:3');
      const listed = await store.messages(10);
      await Promise.all([store.published(listed[1]!), store.published(listed[0]!), store.close()]);
      expect(await left(world, store)).toEqual(both('k:3'));
    }, url));

  it.each([1, 2, 3, 4, 5])('whatever is called at once, no message is lost or listed again (seed %i)', (seed) =>
    inWorld(async (world) => {
      const store = storeOf(world);
      const random = seeded(seed);
      const all = Array.from({ length: 30 }, (_, n) => `${'abc'[n % 3]!}:${n}`);
      await world.add(...all);
      const done = new Set<string>();
      /** Lists, and checks that the list has the messages that earlier calls have not published, in order per key. */
      const list = async (): Promise<readonly Message[]> => {
        const before = new Set(done);
        const listed = await store.messages(20);
        const ids = idsOf(listed);
        expect(new Set(ids).size).toBe(ids.length);
        expect(ids.filter((id) => before.has(id))).toEqual([]);
        for (const key of 'abc') {
          const numbers = ids.filter((id) => id.startsWith(key)).map((id) => Number(id.slice(2)));
          expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
        }
        return listed;
      };
      for (let round = 0; round < 4; round++) {
        const listed = await list();
        const work: Promise<unknown>[] = [];
        for (let call = 0; call < 6; call++) {
          const some = listed.filter(() => random() < 0.15);
          // Counted when it is asked: the calls after it come after it.
          for (const { id } of some) done.add(id);
          work.push(store.published(...some));
        }
        work.push(list());
        await Promise.all(work);
      }
      const rest = all.filter((id) => !done.has(id));
      const { here, after } = await left(world, store);
      expect(here.toSorted()).toEqual(rest.toSorted());
      expect(after).toEqual(here);
    }, url),
  );
});

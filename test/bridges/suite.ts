import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { Messenger, newMessage, type Message } from '../../src/index.js';
import { ACKNOWLEDGED, type TransactionBridge } from '../../src/adapter.js';
import { createInbox } from '../../src/inbox/index.js';
import { onTransactionEnd, runnerOf } from '../../src/stores/postgres/drivers/index.js';
import {
  PostgresStore,
  type PostgresClient,
  type PostgresStoreOptions,
  type TransactionHandle,
} from '../../src/stores/postgres/index.js';
import { until } from '../../src/testing/conformance/assert.js';
import { newDatabase } from '../support/database.js';
import { sleepingFor } from '../support/sleeping.js';

/**
 * A query builder or an ORM, as an application uses it on a database with the table `orders`. `Handle` is the part of
 * its transaction that the bridge asks for.
 */
export interface Library<Tx extends Handle, Handle = Tx> {
  /** Absent if the store accepts its transaction without a bridge. */
  readonly bridge?: TransactionBridge<Handle>;
  /** The client on which the store and its relays work. @default a pool of `pg` */
  readonly client?: PostgresClient;
  /** Runs `work` in a transaction of the library. Commits if it resolves; rolls back and rejects if it rejects. */
  readonly transaction: <T>(work: (transaction: Tx) => Promise<T>) => Promise<T>;
  /** The same inside another transaction; absent if the library has no savepoints. */
  readonly savepoint?: (transaction: Tx, work: (inner: Tx) => Promise<void>) => Promise<void>;
  /** Inserts an order with the library's own means. */
  readonly insert: (transaction: Tx, id: string) => Promise<unknown>;
  /** Handles that commit every query by themselves, and must be refused. */
  readonly roots: readonly unknown[];
  readonly close: () => Promise<unknown>;
}

/** What a library and its bridge can do. */
export interface Features {
  /** Whether the library has nested transactions. */
  readonly savepoints: boolean;
  /**
   * Who refuses a handle whose transaction has ended: the library itself, or the bridge and, at the latest, the server.
   */
  readonly refusesEnded: 'bridge' | 'library';
  /** Whether no two transactions share a handle. */
  readonly ownHandles: boolean;
  /** Whether the commit itself wakes a relay of this process. */
  readonly tellsOfCommit: boolean;
}

/** A library may know only the `id`. Prisma's client is that of its example, which knows the other columns too. */
export const ORDERS = `
  CREATE TABLE orders (id text PRIMARY KEY, item text NOT NULL DEFAULT 'chair', pieces integer NOT NULL DEFAULT 1)`;

/** Tests of every bridge, on a real PostgreSQL. */
export function bridgeSuite<Tx extends Handle, Handle = Tx>(
  name: string,
  features: Features,
  open: (url: string) => Promise<Library<Tx, Handle>>,
): void {
  describe(name, () => {
    let library: Library<Tx, Handle>;
    let pool: pg.Pool;
    type Input = Parameters<typeof newMessage>[0] | Message | object;
    let store: PostgresStore<Input, Handle>;
    const storeWith = (options: PostgresStoreOptions<Input, Handle> = {}) =>
      new PostgresStore<Input, Handle>(library.client ?? pool, {
        ...(library.bridge && { bridge: library.bridge }),
        ...options,
      });

    beforeAll(async () => {
      const url = await newDatabase(inject('postgres')[17]);
      pool = new pg.Pool({ connectionString: url, max: 5 });
      await pool.query(ORDERS);
      library = await open(url);
      store = storeWith();
      await store.migrate();
    });
    afterAll(async () => {
      await store.close();
      await library.close();
      await pool.end();
    });
    beforeEach(() => pool.query('DELETE FROM orders'));

    /** Relays all stored messages, and returns them. */
    async function relayed(destination = 'default'): Promise<Message[]> {
      const published: Message[] = [];
      const publisher = {
        batchKeepsKeyOrder: true,
        publish: () => Promise.resolve(),
        publishBatch: (batch: readonly Message[]) => {
          published.push(...batch);
          return Promise.resolve(batch.map(() => ACKNOWLEDGED));
        },
      };
      const messenger = new Messenger(store, publisher, { destination, publishBatchSize: 1_000 });
      while ((await messenger.publish()) > 0);
      return published;
    }
    const orders = async () =>
      (await pool.query<[string]>({ text: 'SELECT id FROM orders ORDER BY id', rowMode: 'array' })).rows.flat();
    const textOf = ({ payload }: Message) => Buffer.from(payload).toString();

    it('stores a message with the data, and relays it unchanged', async () => {
      const message = newMessage('grüße 😀 "\'\\ $1 ? :name ;--', {
        topic: 'order.created',
        key: 'kéy $2 ?',
        metadata: { tenant: "acme's ?", empty: '' },
      });
      await library.transaction(async (transaction) => {
        await library.insert(transaction, 'order-1');
        await store.add(transaction, message);
      });
      expect(await orders()).toEqual(['order-1']);
      const [found, ...more] = await relayed();
      expect(more).toEqual([]);
      expect(found).toMatchObject({ id: message.id, topic: 'order.created', key: 'kéy $2 ?', at: message.at });
      expect(found?.metadata).toEqual(message.metadata);
      expect(found && textOf(found)).toBe(textOf(message));
    });

    it('keeps every byte, and leaves absent fields absent', async () => {
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
      await library.transaction((transaction) => store.add(transaction, bytes));
      const [found] = await relayed();
      expect(found?.payload).toEqual(Buffer.from(bytes));
      expect([found?.topic, found?.key, found?.deliverAt]).toEqual([undefined, undefined, undefined]);
    });

    it('returns what the transaction has stored so far, but not what others have', async () => {
      const message = newMessage('grüße \n 😀', { topic: 'order.created', key: 'k', metadata: { a: 'b' } });
      await library.transaction(async (transaction) => {
        expect(await store.stored(transaction)).toEqual([]);
        await store.add(transaction, [message, 'second']);
        const [first, second, ...more] = await store.stored(transaction);
        expect(more).toEqual([]);
        expect(first).toMatchObject({ id: message.id, topic: 'order.created', key: 'k', at: message.at });
        expect([first && textOf(first), first?.metadata]).toEqual(['grüße \n 😀', { a: 'b' }]);
        expect(second && textOf(second)).toBe('second');
      });
      await library.transaction(async (transaction) => {
        expect(await store.stored(transaction)).toEqual([]);
      });
      await relayed();
    });

    describe('receives in its transaction', () => {
      const receive = (id: string, consumer = `it's "$1" ?? :name \\?`) =>
        library.transaction((transaction) => store.receive(transaction, consumer, id));

      it('a message once, and does not record one that is rolled back', async () => {
        const id = `grüße ? $2 'quoted' \\ 😀`;
        const failed = library.transaction(async (transaction) => {
          expect(await store.receive(transaction, 'billing', id)).toBe(true);
          expect(await store.receive(transaction, 'billing', id)).toBe(false);
          throw new Error('the application changed its mind');
        });
        await expect(failed).rejects.toThrow('changed its mind');
        expect([await receive(id, 'billing'), await receive(id, 'billing')]).toEqual([true, false]);
        expect([await receive(id), await receive(id)]).toEqual([true, false]);
      });

      it('a message that is delivered twice at once, with one effect', async () => {
        const inbox = createInbox<Tx, Handle | TransactionHandle>({
          store,
          consumer: 'shipping',
          transaction: (work) => library.transaction((transaction) => work(transaction)),
        });
        const message = newMessage('x');
        let calls = 0;
        const ran = await Promise.all(
          Array.from({ length: 3 }, () =>
            inbox.once(message, async (transaction) => {
              calls += 1;
              await library.insert(transaction, message.id);
            }),
          ),
        );
        expect([ran.filter((each) => each), calls, await orders()]).toEqual([[true], 1, [message.id]]);
      });

      it('a message again if its effect failed', async () => {
        const inbox = createInbox<Tx, Handle | TransactionHandle>({
          store,
          consumer: 'shipping',
          transaction: (work) => library.transaction((transaction) => work(transaction)),
        });
        const message = newMessage('x');
        const once = (fails: boolean) =>
          inbox.once(message, async (transaction) => {
            await library.insert(transaction, message.id);
            if (fails) throw new Error('not yet');
          });
        await expect(once(true)).rejects.toThrow('not yet');
        expect(await orders()).toEqual([]);
        expect([await once(false), await once(false), await orders()]).toEqual([true, false, [message.id]]);
      });

      it('nothing through a handle that commits every query by itself', async () => {
        for (const root of library.roots) {
          await expect(store.receive(root as Tx, 'billing', 'x')).rejects.toMatchObject({
            code: 'INVALID_TRANSACTION',
          });
        }
        expect(await receive('x', 'billing')).toBe(true);
      });
    });

    it('does not count a message as handled if its transaction was rolled back silently', async () => {
      const inbox = createInbox({ store, consumer: 'quiet', transaction: (fn) => library.transaction(fn) });
      await library.transaction((transaction) => library.insert(transaction, 'taken'));
      const message = newMessage('x');
      const handled = inbox.once(message, async (transaction) => {
        // COMMIT will roll back, and most libraries do not report it.
        await Promise.resolve(library.insert(transaction, 'taken')).catch(() => undefined);
      });
      await expect(handled).rejects.toThrow();
      expect(await inbox.once(message, () => Promise.resolve())).toBe(true);
      expect(await inbox.once(message, () => Promise.resolve())).toBe(false);
    });

    it('sends a statement unchanged, whatever names it contains', async () => {
      const odd = storeWith({ schema: `odd "$1" ?? it's \\? :name` });
      await odd.migrate();
      await library.transaction((transaction) => odd.add(transaction, 'in another schema'));
      expect((await odd.messages(10)).map(({ payload }) => Buffer.from(payload).toString())).toEqual([
        'in another schema',
      ]);
      expect(await relayed()).toEqual([]);
    });

    it('leaves nothing behind when a transaction is rolled back', async () => {
      const failure = new Error('the application changed its mind');
      await expect(
        library.transaction(async (transaction) => {
          await library.insert(transaction, 'order-1');
          await store.add(transaction, 'never');
          throw failure;
        }),
      ).rejects.toThrow(failure.message);
      expect(await orders()).toEqual([]);
      expect(await relayed()).toEqual([]);
    });

    const withSavepoints = async () => {
      const { savepoint } = library;
      if (savepoint === undefined) throw new Error('a library with savepoints has `savepoint`');
      await library.transaction(async (transaction) => {
        await store.add(transaction, 'before');
        await expect(
          savepoint(transaction, async (inner) => {
            await library.insert(inner, 'order-1');
            await store.add(inner, 'never');
            throw new Error('only this part');
          }),
        ).rejects.toThrow('only this part');
        await savepoint(transaction, async (inner) => {
          await store.add(inner, 'within');
        });
        await store.add(transaction, 'after');
      });
      expect(await orders()).toEqual([]);
      expect((await relayed()).map(textOf)).toEqual(['before', 'within', 'after']);
    };

    if (features.savepoints) it('leaves nothing of a savepoint that was rolled back, and the rest', withSavepoints);

    it('stores ten thousand messages in one call, in order', async () => {
      const messages = Array.from({ length: 10_000 }, (_, i) => newMessage(`message ${i}`, { key: `key-${i % 7}` }));
      await library.transaction((transaction) => store.add(transaction, messages));
      const found = await relayed();
      expect(found.map(({ id }) => id)).toEqual(messages.map(({ id }) => id));
    });

    it('passes on the library’s own error, and stores nothing', async () => {
      const twice = library.transaction(async (transaction) => {
        await store.add(transaction, 'never');
        await library.insert(transaction, 'order-1');
        await library.insert(transaction, 'order-1');
      });
      const error = await twice.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(Error);
      expect(causesOf(error)).toContain('23505');
      expect(await relayed()).toEqual([]);
    });

    it('rejects `add` with an error of the database as the library threw it, and stores nothing', async () => {
      let thrown: unknown;
      const bridge = bridgeOf(library);
      const watched: TransactionBridge<Handle> = {
        ...bridge,
        execute: (handle, text, values) =>
          Promise.resolve(bridge.execute(handle, text, values)).catch((error: unknown) => {
            thrown = error;
            throw error;
          }),
      };
      const fails = async (work: (transaction: Tx) => Promise<unknown>) => {
        let failure: unknown;
        const failed = library.transaction(async (transaction) => {
          await store.add(transaction, 'never');
          await library.insert(transaction, 'order-1');
          await work(transaction).catch((error: unknown) => (failure = error));
          throw new Error('the application gives up');
        });
        await expect(failed).rejects.toThrow();
        expect(causesOf(failure)).toContain('XX999');
        return failure as Error;
      };
      // An error that means nothing to this library, the same for both tables.
      await pool.query(`
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'XX999'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.id = 'refused') EXECUTE FUNCTION refuse();
        CREATE TRIGGER refuse BEFORE INSERT ON messenger.messages
          FOR EACH ROW WHEN (NEW.topic = 'refused') EXECUTE FUNCTION refuse();`);
      try {
        const refused = newMessage('never', { topic: 'refused' });
        const failure = await fails((transaction) => storeWith({ bridge: watched }).add(transaction, refused));
        expect(failure).toBe(thrown);
        // MikroORM has errors of its own, but not for SQL that is sent through its connection.
        const own = await fails(async (transaction) => library.insert(transaction, 'refused'));
        expect([own.constructor, pg.DatabaseError]).toContain(failure.constructor);
      } finally {
        await pool.query('DROP FUNCTION refuse CASCADE');
      }
      expect(await orders()).toEqual([]);
      expect(await relayed()).toEqual([]);
    });

    it('rejects with the error of the statement itself, and cannot continue in that transaction', async () => {
      const other = storeWith({ schema: 'not_there' });
      const failed = library.transaction((transaction) => other.add(transaction, 'never'));
      await expect(failed).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH', cause: expect.any(Error) as unknown });
      expect(await relayed()).toEqual([]);
    });

    it('writes into a schema of any name', async () => {
      const schema = `$$a ?$b :c \\? "d" '%s {0}`;
      const odd = storeWith({ schema });
      await odd.migrate();
      await library.transaction((transaction) => odd.add(transaction, 'there'));
      const { rowCount } = await pool.query(`SELECT FROM "${schema.replaceAll('"', '""')}".messages`);
      expect(rowCount).toBe(1);
    });

    it('refuses a handle whose transaction has ended, and stores nothing', async () => {
      for (const end of ['commit', 'rollback']) {
        let kept: Tx | undefined;
        await library
          .transaction(async (transaction) => {
            kept = transaction;
            await library.insert(transaction, end);
            if (end === 'rollback') throw new Error(end);
          })
          .catch(() => undefined);
        const late = store.add(kept as Tx, 'never');
        if (features.refusesEnded === 'library') await expect(late).rejects.toBeInstanceOf(Error);
        else await expect(late).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      }
      expect(await relayed()).toEqual([]);
    });

    it('stores exactly what its transaction commits, even if it is called while the transaction ends', async () => {
      await pool.query(`
        CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'at commit'; END $$;
        CREATE CONSTRAINT TRIGGER refuse_commit AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW WHEN (NEW.id LIKE 'fails%') EXECUTE FUNCTION refuse_commit();`);
      const stored: string[] = [];
      try {
        for (let turns = 0; turns < 40; turns++) {
          for (const end of ['commits', 'fails', 'rolls back']) {
            const text = `${end} after ${String(turns)}`;
            let told: Promise<unknown> = Promise.resolve();
            const committed = await library
              .transaction(async (transaction) => {
                if (turns % 2 === 0) await library.insert(transaction, text);
                // So that it comes before, during and after the steps with which the library ends the transaction.
                told = after(turns, () => store.add(transaction, text));
                told.catch(() => undefined);
                if (end === 'fails' && turns % 2 === 1) await library.insert(transaction, text);
                if (end === 'rolls back') throw new Error(end);
              })
              .then(
                () => end === 'commits',
                () => false,
              );
            const wasTold = await told.then(
              () => true,
              () => false,
            );
            if (committed && wasTold) stored.push(text);
          }
        }
      } finally {
        await pool.query('DROP FUNCTION refuse_commit CASCADE');
      }
      expect((await relayed()).map(textOf)).toEqual(stored);
      // Some must come in time, and some must not, or nothing was tested.
      expect(stored.length).toBeLessThan(40);
    });

    it('gives no effect to a message that is received while its transaction ends', async () => {
      for (let turns = 0; turns < 30; turns++) {
        const id = `late-${String(turns)}`;
        let told: Promise<unknown> = Promise.resolve();
        await library
          .transaction((transaction) => {
            told = after(turns, () => store.receive(transaction, 'late', id));
            told.catch(() => undefined);
            return Promise.reject(new Error('the application changed its mind'));
          })
          .catch(() => undefined);
        await told.catch(() => undefined);
      }
      const { rows } = await pool.query(`SELECT id FROM messenger.inbox WHERE consumer = 'late'`);
      expect(rows).toEqual([]);
    });

    const leaves = async () => {
      let kept: Tx | undefined;
      await library.transaction(async (transaction) => {
        kept = transaction;
        await store.add(transaction, 'mine');
      });
      await library.transaction(async (transaction) => {
        await library.insert(transaction, 'order-1');
        await expect(store.add(kept as Tx, 'never')).rejects.toBeInstanceOf(Error);
      });
      expect(await orders()).toEqual(['order-1']);
      expect((await relayed()).map(textOf)).toEqual(['mine']);
    };
    if (features.ownHandles) it('does not touch the next transaction of its connection once its own has ended', leaves);

    it('refuses a handle that commits every query by itself, and stores nothing', async () => {
      for (const root of [...library.roots, undefined, null, {}, 'handle']) {
        await expect(store.add(root as Tx, 'never')).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      }
      expect(await relayed()).toEqual([]);
    });

    it('says in its errors what to pass instead', async () => {
      await expect(store.add({} as Tx, 'never')).rejects.toThrow(
        library.bridge?.handleName ?? 'a pg Client or PoolClient',
      );
    });

    const tells = async (within: Library<Tx, Handle>['savepoint'] = (transaction, work) => work(transaction)) => {
      let seen: Promise<string[]> | undefined;
      await library.transaction(async (transaction) => {
        await within(transaction, async (inner) => {
          await library.insert(inner, 'order-1');
          onTransactionEnd(inner, library.bridge, () => {
            seen = orders();
          });
        });
        // A relay that was told of the end of the savepoint would have looked by now.
        for (let look = 0; look < 10; look++) await pool.query('SELECT 1');
        expect(seen).toBeUndefined();
      });
      await expect.poll(() => seen).toBeDefined();
      expect(await seen).toEqual(['order-1']);
    };

    const tellsNobodyOfRejections = async () => {
      const rolledBack = library.transaction((transaction) => {
        onTransactionEnd(transaction, library.bridge, () => undefined);
        return Promise.reject(new Error('the application changed its mind'));
      });
      await expect(rolledBack).rejects.toThrow('changed its mind');
      // An unhandled rejection fails the whole run, once this test has let it surface.
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
    };

    const wakes = async () => {
      const quiet = storeWith({ notify: false, listen: false });
      const interval = 3_600_000;
      const sleeps = sleepingFor(interval);
      const stop = new AbortController();
      let arrived: (message: Message) => void = () => undefined;
      const publish = (message: Message) => {
        arrived(message);
        return Promise.resolve();
      };
      const relay = new Messenger(quiet, { publish }, { interval }).start({ signal: stop.signal });
      const arrival = async (text: string) => {
        const next = new Promise<Message>((resolve) => (arrived = resolve));
        await library.transaction((transaction) => quiet.add(transaction, text));
        expect(textOf(await next)).toBe(text);
      };
      try {
        await until(() => sleeps() > 0, 'its sleep');
        for (const text of ['woken', 'and once more', 'and again']) await arrival(text);
      } finally {
        stop.abort();
        await relay;
      }
    };
    if (features.tellsOfCommit) {
      it('reports a commit once others see it', () => tells());
      if (features.savepoints) it('reports the commit, but not the end of a savepoint', () => tells(library.savepoint));
      it('leaves no rejection unhandled when it waits for a commit that does not come', tellsNobodyOfRejections);
      it('wakes a relay of this process once the transaction has committed', wakes);
    } else {
      it('does not report a commit', async () => {
        const told: string[] = [];
        await library.transaction(async (transaction) => {
          library.bridge?.onCommit?.(transaction, () => told.push('committed'));
        });
        // Nor does it happen a little later.
        await after(31, async () => undefined);
        expect(told).toEqual([]);
      });
    }
  });
}

/** Does something after so many turns of the microtask queue; after thirty, in the next turn of the event loop. */
async function after<T>(turns: number, work: () => Promise<T>): Promise<T> {
  for (let turn = 0; turn < turns; turn++) await Promise.resolve();
  if (turns > 30) await new Promise((resolve) => setImmediate(resolve));
  return work();
}

/** The bridge of the library. For a library without one, a bridge that is made of what the store knows. */
function bridgeOf<Tx extends Handle, Handle>({ bridge }: Library<Tx, Handle>): TransactionBridge<Handle> {
  return (
    bridge ?? {
      handleName: 'a transaction of the client',
      isHandle: () => true,
      execute: (handle, text, values) => runnerOf(handle, undefined).run(text, values),
    }
  );
}

/** The SQLSTATEs of an error and of its causes. Libraries wrap those of their driver in different ways. */
export function causesOf(error: unknown): unknown[] {
  if (typeof error !== 'object' || error === null) return [];
  const { code, originalCode, cause, original, parent, meta, driverError, driverAdapterError } = error as Record<
    string,
    unknown
  >;
  const text = JSON.stringify(meta ?? null);
  return [code, originalCode, ...(/23505|UniqueConstraint/.test(text) || code === 'P2002' ? ['23505'] : [])].concat(
    [cause, original, parent, meta, driverError, driverAdapterError].flatMap(causesOf),
  );
}

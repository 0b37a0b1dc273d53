import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/core/util/clock.js';
import { createInbox, type InboxOptions } from '../../src/inbox/index.js';
import { storeInbox } from '../../src/inbox/store-inbox.js';
import { newMessage } from '../../src/index.js';
import type { InboxStore } from '../../src/adapter.js';
import { MemoryStore, type MemoryTransaction } from '../../src/stores/memory/index.js';

const HOUR = 3_600_000;
const consumer = 'billing';
const message = newMessage('x', { id: 'a' });

type Options = InboxOptions<MemoryTransaction>;
/** A transaction function as untyped code may pass it. */
type Transaction = (work: (transaction: unknown) => Promise<unknown>) => Promise<unknown>;

/** An inbox in memory, with a clock that the test sets, and the errors that it logged. */
function inbox(options: Partial<Options> & { through?: (store: MemoryStore) => Transaction } = {}) {
  const { through, ...rest } = options;
  const store = new MemoryStore();
  const errors: Error[] = [];
  const time = { now: 0 };
  const clock: Clock = { now: () => time.now, setTimeout: () => () => undefined, random: () => 0 };
  const made = storeInbox<MemoryTransaction, MemoryTransaction>(
    {
      store,
      consumer,
      transaction: (through?.(store) as Options['transaction'] | undefined) ?? ((fn) => store.transaction(fn)),
      errorLogger: { error: (error) => errors.push(error) },
      ...rest,
    },
    clock,
  );
  return {
    store,
    errors,
    time,
    once: (...args: Parameters<typeof made.once>) => made.once(...args),
  };
}

describe('createInbox', () => {
  const good = { store: new MemoryStore(), consumer, transaction: () => undefined };
  it.each([
    [undefined, 'options must be an object'],
    [{ ...good, consumers: 1 }, 'consumers'],
    [{ ...good, store: undefined }, 'store must be a store with receive and deleteReceived methods'],
    [{ ...good, store: { receive: () => true } }, 'got an object (Object)'],
    [{ ...good, consumer: undefined }, 'consumer must be a non-empty string'],
    [{ ...good, consumer: '' }, 'consumer must be a non-empty string of well-formed Unicode without U+0000, got ""'],
    [{ ...good, consumer: 'a\u0000' }, '"a\\u0000"'],
    [{ ...good, consumer: '\ud800' }, 'well-formed'],
    [{ ...good, consumer: 7 }, '7 (number)'],
    [{ ...good, transaction: undefined }, 'transaction must be a function such as (fn) => db.transaction(fn)'],
    [{ ...good, transaction: {} }, 'got an object (Object)'],
    [
      { ...good, retention: HOUR - 1 },
      `retention must be a number from ${HOUR} to 315360000000, got ${HOUR - 1} (number)`,
    ],
    [{ ...good, retention: Infinity }, 'Infinity'],
    [{ ...good, retention: '7 days' }, '"7 days"'],
    [{ ...good, errorLogger: console.error }, 'errorLogger must be an object with an error method, got a function'],
  ])('refuses %o', (options, text) => {
    const create = () => createInbox(options as never);
    expect(create).toThrow(text);
    expect(create).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }) as Error);
  });

  it('refuses a message whose id cannot be kept', async () => {
    const { once } = inbox();
    for (const wrong of [undefined, null, {}, { id: '' }, { id: 7 }, { id: 'a\u0000' }]) {
      await expect(once(wrong as never, () => Promise.resolve())).rejects.toMatchObject({ code: 'INVALID_MESSAGE' });
    }
  });
});

describe('once', () => {
  it('runs the work in the transaction, only the first time', async () => {
    const { once, store } = inbox();
    const work = (tx: MemoryTransaction) => store.add(tx, 'effect');
    expect([await once(message, work), await once(message, work)]).toEqual([true, false]);
    expect(await once(newMessage('x', { id: 'b' }), work)).toBe(true);
    expect(store.all()).toHaveLength(2);
  });

  it('has no effect if the work rejects, and runs it again', async () => {
    const { once, store } = inbox();
    const failing = once(message, async (tx) => {
      await store.add(tx, 'effect');
      throw new Error('not yet');
    });
    await expect(failing).rejects.toThrow('not yet');
    expect(store.all()).toEqual([]);
    expect(await once(message, (tx) => store.add(tx, 'effect'))).toBe(true);
    expect(store.all()).toHaveLength(1);
  });

  it('keeps consumers apart', async () => {
    const { once, store } = inbox();
    const other = createInbox({ store, consumer: 'shipping', transaction: (fn) => store.transaction(fn) });
    const work = () => Promise.resolve();
    expect([await once(message, work), await other.once(message, work), await once(message, work)]).toEqual([
      true,
      true,
      false,
    ]);
  });

  it('runs the work once for simultaneous deliveries', async () => {
    const { once, store } = inbox();
    const all = Array.from({ length: 10 }, () => once(message, (tx) => store.add(tx, 'effect')));
    expect((await Promise.all(all)).filter((ran) => ran)).toHaveLength(1);
    expect(store.all()).toHaveLength(1);
  });
});

describe('a wrong function transaction', () => {
  const wrong: Record<string, [(store: MemoryStore) => Transaction, RegExp]> = {
    'does not call its callback': [() => () => Promise.resolve(), /without calling its callback/],
    'gives it no transaction': [() => (work) => work({}), /unknown transaction handle/],
    'gives it nothing': [() => (work) => work(undefined), /unknown transaction handle/],
    'gives it a transaction that is over': [
      (store) => async (work) => {
        const ended = await store.transaction((tx) => Promise.resolve([tx]));
        return work(ended[0]);
      },
      /transaction has ended/,
    ],
    'keeps to itself that it was refused': [
      () => (work) => work({}).catch(() => undefined),
      /unknown transaction handle/,
    ],
  };
  it.each(Object.entries(wrong))(
    '%s: fails with an explanation, and the message is delivered again',
    async (_, [through, text]) => {
      const { once, store } = inbox({ through });
      const work = () => Promise.resolve();
      const failed = once(message, work);
      await expect(failed).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      await expect(failed).rejects.toThrow(text);
      expect(await store.deleteReceived(consumer, 0)).toBe(0);
    },
  );

  it('does not wait for its callback: fails with an explanation', async () => {
    const { once } = inbox({ through: (store) => (work) => store.transaction((tx) => void work(tx)) });
    const failed = once(message, () => new Promise((resolve) => setImmediate(resolve)));
    await expect(failed).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
    await expect(failed).rejects.toThrow(
      'resolved before its callback did: it must wait for the callback. Give the inbox a function such as (fn) => db.transaction(fn)',
    );
  });

  it('swallows the failure of the handler: rejects with it all the same', async () => {
    const { once } = inbox({ through: (store) => (work) => store.transaction(work).catch(() => undefined) });
    await expect(once(message, () => Promise.reject(new Error('not yet')))).rejects.toThrow('not yet');
    for (const nothing of [undefined, null]) {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- as a handler may do
      await expect(once(message, () => Promise.reject(nothing as never))).rejects.toBe(nothing);
    }
  });

  it('resolves to something else: makes no difference', async () => {
    const { once } = inbox({ through: (store) => (work) => store.transaction(work).then(() => 'else') });
    const work = () => Promise.resolve();
    expect([await once(message, work), await once(message, work)]).toEqual([true, false]);
  });
});

describe('a library that calls the callback again', () => {
  /**
   * Calls the callback twice, as a library does that retries after a serialisation failure. The transaction of the
   * first call is rolled back.
   */
  const twice =
    (store: MemoryStore): Transaction =>
    async (work) => {
      const first = store.transaction(async (tx) => {
        await work(tx);
        throw new Error('could not serialise');
      });
      await first.catch(() => undefined);
      return store.transaction(work);
    };

  it('succeeds with the last call', async () => {
    const { once, store } = inbox({ through: twice });
    let calls = 0;
    const work = async (tx: MemoryTransaction) => {
      calls += 1;
      await store.add(tx, 'effect');
      if (calls === 1) throw new Error('only the first');
    };
    expect([await once(message, work), await once(message, work)]).toEqual([true, false]);
    expect([calls, store.all().length]).toEqual([2, 1]);
  });

  it('fails if its last call does', async () => {
    const { once, store } = inbox({ through: twice });
    let calls = 0;
    const work = () => (++calls === 2 ? Promise.reject(new Error('the last')) : Promise.resolve());
    await expect(once(message, work)).rejects.toThrow('the last');
    expect(await store.deleteReceived(consumer, 0)).toBe(0);
  });
});

describe('cleaning', () => {
  /** A store that counts calls, and holds cleaning until it is released. */
  function counted() {
    const memory = new MemoryStore();
    const calls: unknown[] = [];
    const state = { clean: (): Promise<number> => Promise.resolve(0) };
    const store: InboxStore<MemoryTransaction> = {
      receive: (...args) => memory.receive(...args),
      deleteReceived: (...args) => {
        calls.push(args);
        return state.clean();
      },
    };
    const made = inbox({ store, through: () => (work) => memory.transaction(work) });
    let id = 0;
    const handled = () => made.once(newMessage('x', { id: String(++id) }), () => Promise.resolve());
    return { ...made, calls, state, handled };
  }

  it('happens by itself after a message, once an hour at most', async () => {
    const { handled, time, calls } = counted();
    for (const [now, cleanings] of [
      [0, 1],
      [1, 1],
      [HOUR - 1, 1],
      [HOUR, 2],
      [HOUR + 1, 2],
      [3 * HOUR, 3],
    ] as const) {
      time.now = now;
      await handled();
      expect(calls).toHaveLength(cleanings);
    }
    expect(calls[0]).toEqual([consumer, 7 * 24 * HOUR, undefined]);
  });

  it('happens one at a time, and nobody waits for it', async () => {
    const { handled, time, calls, state } = counted();
    let end: (count: number) => void = () => undefined;
    state.clean = () => new Promise((resolve) => (end = resolve));
    for (time.now = 0; time.now <= 3 * HOUR; time.now += HOUR) expect(await handled()).toBe(true);
    expect(calls).toHaveLength(1);
    end(0);
    await expect
      .poll(async () => {
        await handled();
        return calls.length;
      })
      .toBe(2);
  });

  it('is logged if it fails, does not fail a handler, and is tried again an hour later', async () => {
    const { handled, time, calls, state, errors } = counted();
    const failures = [
      () => Promise.reject(new Error('rejected')),
      () => {
        throw new Error('thrown');
      },
    ];
    for (const [n, clean] of failures.entries()) {
      state.clean = clean;
      time.now = n * HOUR;
      expect([await handled(), await handled()]).toEqual([true, true]);
      await expect.poll(() => errors.length).toBe(n + 1);
      expect(calls).toHaveLength(n + 1);
    }
    expect(errors.map(({ message: text }) => text)).toEqual(['rejected', 'thrown']);
  });

  it('does not happen after a failed message', async () => {
    const { once, calls } = counted();
    await expect(once(message, () => Promise.reject(new Error('not yet')))).rejects.toThrow('not yet');
    expect(calls).toEqual([]);
  });

  it('can be requested, with a signal, for messages that are older than `keep`', async () => {
    const calls: unknown[] = [];
    const store = Object.assign(new MemoryStore(), {
      deleteReceived: (...args: unknown[]) => {
        calls.push(args);
        return Promise.resolve(7);
      },
    });
    const cleaned = createInbox({ store, consumer, retention: HOUR, transaction: (fn) => store.transaction(fn) });
    const { signal } = new AbortController();
    expect(await cleaned.clean({ signal })).toBe(7);
    expect(calls).toEqual([[consumer, HOUR, { signal }]]);
  });
});

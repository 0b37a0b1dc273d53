/**
 * Tests for everything that a store must do, under any test runner.
 *
 * @module
 */
import type { ErrorCode } from '../../core/errors.js';
import { newMessage, type Message } from '../../core/contracts/message.js';
import { isFeedStore, type Store } from '../../core/contracts/store.js';
import { assert, assertEqual, refused, rejection, until, testsWith } from './assert.js';
import { feedTests } from './feed-suite.js';
import {
  idsOf,
  later,
  message,
  needed,
  some,
  stored,
  type StoreFeatures,
  type StoreHarness,
  type StoreSuite,
  type StoreTest,
} from './store-harness.js';

/**
 * Declares the tests for the `Store` contract and, if declared, for the `FeedStore` contract.
 *
 * @example
 * ```ts
 * import { describe, it } from 'vitest';
 * describe('my store', () => storeTestSuite({ it, create, features }));
 * ```
 */
export function storeTestSuite<Handle>({ it, create, features }: StoreSuite<Handle>): void {
  const test: StoreTest<Handle> = testsWith(it, create);
  listing(test, features);
  publishing(test, features);
  transactions(test, features);
  fidelity(test, features);
  refusals(test, features);
  cleaning(test, features);
  if (features.delayed) delaying(test, features);
  if (features.feeds) feedTests(test, features);
  else {
    test('has no feeds', async ({ store }) => {
      assert(!isFeedStore(store), 'openFeed is declared as unsupported, so it must be absent');
      await Promise.resolve();
    });
  }
}

function listing<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  test('lists nothing when nothing is stored', async ({ store }) => {
    assertEqual(await store.messages(10), [], 'messages');
  });

  test('lists stored messages in order, and lists them again until they are published', async (harness) => {
    const messages = await stored(harness, some(5));
    for (let i = 0; i < 3; i++) assertEqual(idsOf(await harness.store.messages(10)), idsOf(messages), 'messages');
  });

  test('lists no more messages than the batch', async (harness) => {
    const ids = idsOf(await stored(harness, some(5)));
    for (const batch of [1, 2, 4, 5, 6, 1_000]) {
      assertEqual(idsOf(await harness.store.messages(batch)), ids.slice(0, batch), `batch of ${String(batch)}`);
    }
  });

  test('drains in batches, each message once', async (harness) => {
    const ids = idsOf(await stored(harness, some(23, ['a', 'b', undefined])));
    assertEqual(await drain(harness.store, 5), ids, 'messages');
    assertEqual(await harness.store.messages(5), [], 'messages left');
  });

  if (!features.persistent) return;
  test('remembers across a restart which messages are published', async (harness) => {
    const [first, second, third] = await stored(harness, some(3));
    const [listed] = await harness.store.messages(10);
    assertEqual(listed?.id, first?.id, 'first');
    await harness.store.published(listed as Message);
    const again = await needed(harness.reopen, 'reopen')();
    assertEqual(idsOf(await again.messages(10)), [second?.id, third?.id], 'messages after the restart');
    const [, last] = await again.messages(10);
    await again.published(last as Message);
    const third_ = await needed(harness.reopen, 'reopen')();
    assertEqual(idsOf(await third_.messages(10)), [second?.id], 'messages after the second restart');
  });
}

function publishing<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  test('no longer lists messages that were published with several calls, in any order', async (harness) => {
    const { store } = harness;
    await stored(harness, some(6, ['a', 'b']));
    const listed = await store.messages(10);
    for (const place of [4, 1, 0, 5]) await store.published(listed[place] as Message);
    assertEqual(idsOf(await store.messages(10)), idsOf([listed[2], listed[3]]), 'messages left');
    assertEqual((await drain(store, 1)).sort(), idsOf([listed[2], listed[3]]).sort(), 'drained');
  });

  test('lists messages that a published subset left out again, before new ones, in order per key', async (harness) => {
    const { store } = harness;
    const messages = await stored(harness, some(9, ['a', 'b', undefined]));
    const listed = await store.messages(8);
    await store.published(listed[1] as Message, listed[4] as Message, listed[6] as Message);
    const left = [0, 2, 3, 5, 7, 8].map((place) => messages[place]);
    const again = await store.messages(20);
    assertEqual([...idsOf(again)].sort(), idsOf(left).sort(), 'messages left');
    for (const key of ['a', 'b']) assertEqual(idsOf(ofKey(again, key)), idsOf(ofKey(left, key)), `order of key ${key}`);
    // The unpublished messages before the last message of the subset, at places 0, 2, 3 and 5.
    assertEqual([...idsOf(again.slice(0, 4))].sort(), idsOf(left.slice(0, 4)).sort(), 'first of all');
    const drained = await drain(store, 2);
    assertEqual(
      drained.filter((id) => ofKey(left, 'a').some((each) => each?.id === id)),
      idsOf(ofKey(left, 'a')),
      'key a, drained',
    );
    assertEqual([...drained].sort(), idsOf(left).sort(), 'drained');
  });

  test('marks all of the messages as published, or none', async (harness) => {
    const { store } = harness;
    await stored(harness, some(3));
    const listed = await store.messages(10);
    const stranger = message();
    await refused(
      store.published(listed[0] as Message, stranger, listed[2] as Message),
      'UNKNOWN_MESSAGE',
      stranger.id,
    );
    await refused(store.published(stranger), 'UNKNOWN_MESSAGE', stranger.id);
    assertEqual(idsOf(await store.messages(10)), idsOf(listed), 'messages left');
  });

  test('accepts the same message twice, and an empty list', async (harness) => {
    const { store } = harness;
    await stored(harness, some(2));
    const [first, second] = await store.messages(10);
    await store.published();
    await store.published(first as Message);
    await store.published(first as Message);
    assertEqual(idsOf(await store.messages(10)), idsOf([second]), 'messages left');
  });

  test(`${features.remembersListed ? 'accepts' : 'refuses'} messages as published that an earlier call listed`, async (harness) => {
    const { store } = harness;
    await stored(harness, some(2));
    const [first] = await store.messages(10);
    await store.messages(10);
    if (features.remembersListed) await store.published(first as Message);
    else await refused(store.published(first as Message), 'UNKNOWN_MESSAGE', (first as Message).id);
    assertEqual((await store.messages(10)).length, features.remembersListed ? 1 : 2, 'messages left');
  });
}

function transactions<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  test('resolves to the messages as they were stored', async (harness) => {
    const [one, ...many] = some(4);
    const results = await harness.transaction(async (handle) => [
      ...(await harness.store.add(handle, one as Message)),
      ...(await harness.store.add(handle, many)),
    ]);
    assertEqual(idsOf(results), idsOf([one, ...many]), 'results');
  });

  test('stores nothing of a transaction that is rolled back', async (harness) => {
    const { store, transaction } = harness;
    const [before] = await stored(harness, some(1));
    await rejection(
      transaction(async (handle) => {
        await store.add(handle, some(3));
        throw new Error('rolled back');
      }),
      'the transaction',
    );
    const [after] = await stored(harness, some(1));
    assertEqual(idsOf(await store.messages(10)), idsOf([before, after]), 'messages');
  });

  if (features.savepoints) {
    test('stores nothing of a savepoint that is rolled back, and the rest', async (harness) => {
      const { store, transaction } = harness;
      const savepoint = needed(harness.savepoint, 'savepoint');
      const [a1, a2, a3, a4] = some(4, ['a']) as [Message, Message, Message, Message];
      await transaction(async (handle) => {
        await store.add(handle, a1);
        const failed = savepoint(handle, async (inner) => {
          await store.add(inner, a2);
          throw new Error('rolled back');
        });
        await rejection(failed, 'the savepoint');
        await savepoint(handle, async (inner) => {
          await store.add(inner, a3);
        });
        await store.add(handle, a4);
      });
      assertEqual(idsOf(await store.messages(10)), idsOf([a1, a3, a4]), 'messages');
    });
  }

  test('stores 10,000 messages in one call, in their order', async (harness) => {
    const messages = some(10_000, ['a', 'b', undefined]);
    await stored(harness, messages);
    const listed = await harness.store.messages(20_000);
    assert(idsOf(listed).join() === idsOf(messages).join(), `listed ${String(listed.length)}, or not in order`);
    await harness.store.published(...listed);
    assertEqual(await harness.store.messages(10), [], 'messages left');
  });

  test('stores nothing of an empty array', async (harness) => {
    assertEqual(await stored(harness, []), [], 'results');
    assertEqual(await harness.store.messages(10), [], 'messages');
  });

  test('lists a message whose transaction commits after that of a later message', async (harness) => {
    const messages = some(12, ['a', 'b']);
    for (const each of messages) await stored(harness, [each]);
    assertEqual(idsOf(await harness.store.messages(100)), idsOf(messages), 'messages');
  });

  if (!features.concurrentTransactions) return;

  test('lists no message before it is committed', async ({ store, transaction }) => {
    const [one] = some(1) as [Message];
    await transaction(async (handle) => {
      await store.add(handle, one);
      assertEqual(await store.messages(10), [], 'messages before the commit');
    });
    assertEqual(idsOf(await store.messages(10)), [one.id], 'messages after it');
  });

  test('waits for no open transaction, and keeps the order of commits per key meanwhile', async (harness) => {
    const { store, transaction } = harness;
    const [x1, y1, y2, y3] = ['x', 'y', 'y', 'y'].map((key) => message({ key })) as [
      Message,
      Message,
      Message,
      Message,
    ];
    await transaction(async (older) => {
      await store.add(older, x1);
      await stored(harness, [y1]);
      await stored(harness, [y2]);
      const listed = await store.messages(10);
      assertEqual(idsOf(listed), idsOf([y1, y2]), 'messages while an older transaction is open');
      await store.published(listed[0] as Message);
      // The older transaction stores this message after the others with the same key were committed.
      await store.add(older, y3);
    });
    const left = await drain(store, 10);
    assertEqual([...left].sort(), idsOf([x1, y2, y3]).sort(), 'messages after its commit');
    assert(left.indexOf(y2.id) < left.indexOf(y3.id), 'a message of key y has overtaken another');
  });
}

function fidelity<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  const keeps = (name: string, messages: () => Message[]): void => {
    test(name, async (harness) => {
      const given = await stored(harness, messages());
      const listed = await harness.store.messages(1_000);
      assertEqual(listed.map(fieldsOf), given.map(fieldsOf), 'messages');
    });
  };
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  const texts = [
    'grüße 漢字 😀',
    '\u0001\u007f\ufffe\uffff',
    '\\ \\000 \\x00 \' " $1 %s {}',
    ' a\r\nb\t',
    'b\ufeffom',
    '名',
  ];

  keeps('keeps JSON byte for byte', () =>
    [
      ...texts.map((text) => JSON.stringify(text)),
      '{"b":1, "a":2,  "a":3}',
      ' [1e3,1.0,"\\u0000","\\ud800"]\n',
      'null',
      '0',
    ].map((json) => newMessage(json)),
  );

  if (features.jsonPayloadsOnly) {
    test('refuses a payload that is not JSON, and stores nothing of the call', async (harness) => {
      for (const payload of ['text', '{', encode('"\xff').subarray(0, 2), encode('\ufeff{}')]) {
        await refused(stored(harness, [message(), newMessage(payload)]), 'INVALID_MESSAGE');
      }
      assertEqual(await harness.store.messages(10), [], 'messages');
    });
  } else {
    keeps('keeps payloads byte for byte', () => [
      newMessage(Uint8Array.from({ length: 256 }, (_, byte) => byte)),
      ...['\u0000', ' ', 'plain', '\ufeffbom', ...texts].map((text) => newMessage(text)),
      // Bytes that are not UTF-8, and a view into a larger buffer.
      newMessage(new Uint8Array([0xed, 0xa0, 0x80, 0xff])),
      newMessage(Uint8Array.from({ length: 100 }, (_, byte) => byte).subarray(10, 20)),
      newMessage(new Uint8Array(1_000_000).fill(7)),
    ]);
  }

  keeps('keeps id, topic and key', () => [
    message({ id: 'chosen' }),
    ...texts.map((text, i) => message({ id: `${text}${String(i)}`, topic: text, key: text })),
    message({ topic: 'topic alone' }),
    message({ key: 'key alone' }),
    message({ key: 'x'.repeat(1_000) }),
  ]);

  keeps('keeps metadata', () => [
    message({ metadata: {} }),
    message({ metadata: { tenant: 'acme', empty: '', ' white space ': ' ' } }),
    message({ metadata: { constructor: 'c', toString: 't', length: '1', published: 'x' } }),
    message({ metadata: JSON.parse('{"__proto__":"p","1":"one"}') as Record<string, string> }),
    message({ metadata: Object.fromEntries(texts.map((text) => [text, text])) }),
    message({ metadata: Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`entry-${String(i)}`, String(i)])) }),
  ]);

  keeps('keeps the time to the millisecond', () =>
    [
      '2020-02-03T04:05:06.789Z',
      '1969-12-31T23:59:59.999Z',
      '0001-01-01T00:00:00.001Z',
      '9999-12-31T23:59:59.999Z',
    ].map((at) => message({ at: new Date(at) })),
  );
}

function refusals<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  const bad: readonly [string, ErrorCode, Partial<Record<keyof Message, unknown>>][] = [
    ['an empty payload', 'EMPTY_MESSAGE_PAYLOAD', { payload: new Uint8Array() }],
    ['a payload that is not bytes', 'INVALID_MESSAGE', { payload: 'text' }],
    ['a metadata value that is not a string', 'INVALID_MESSAGE', { metadata: { count: 3 } }],
    ['metadata that are no object', 'INVALID_MESSAGE', { metadata: ['a'] }],
    ['a NUL in metadata', 'INVALID_MESSAGE', { metadata: { a: 'b\u0000' } }],
    ['a NUL in a key', 'INVALID_MESSAGE', { key: 'b\u0000' }],
    ['half a surrogate pair in a topic', 'INVALID_MESSAGE', { topic: '\ud800' }],
    ['half a surrogate pair in metadata', 'INVALID_MESSAGE', { metadata: { '\udc00': 'x' } }],
    ['an empty id', 'INVALID_MESSAGE', { id: '' }],
    ['an empty key', 'INVALID_MESSAGE', { key: '' }],
    ['an invalid time', 'INVALID_MESSAGE', { at: new Date(NaN) }],
    ['a time that has no four-digit year', 'INVALID_MESSAGE', { at: new Date(8.64e15) }],
  ];
  test('refuses what is not a message, stores nothing of the call, and harms no transaction', async (harness) => {
    const { store, transaction } = harness;
    const good = message();
    await transaction(async (handle) => {
      for (const [name, code, fields] of bad) {
        const broken = { ...fieldsOnly(message()), ...fields } as Message;
        await refused(store.add(handle, [message(), broken]), code, '', name);
        await refused(store.add(handle, broken), code, '', name);
      }
      await store.add(handle, good);
    });
    assertEqual(idsOf(await store.messages(10)), [good.id], 'messages');
  });

  test('refuses a missing or unknown transaction handle', async ({ store }) => {
    for (const handle of [undefined, null, {}, 'BEGIN', 1, store]) {
      await refused(store.add(handle as Handle, message()), 'INVALID_TRANSACTION', '', `handle ${typeof handle}`);
    }
    assertEqual(await store.messages(10), [], 'messages');
  });

  if (features.refusesEndedTransactions) {
    test('refuses a handle whose transaction has ended', async ({ store, transaction }) => {
      let ended: Handle | undefined;
      await transaction(async (handle) => {
        ended = handle;
        await store.add(handle, message({ id: 'first' }));
      });
      await refused(store.add(ended as Handle, message()), 'INVALID_TRANSACTION', '', 'after the commit');
      const failing = transaction((handle) => {
        ended = handle;
        return Promise.reject(new Error('rolled back'));
      });
      await rejection(failing, 'the transaction');
      await refused(store.add(ended as Handle, message()), 'INVALID_TRANSACTION', '', 'after the rollback');
      assertEqual(idsOf(await store.messages(10)), ['first'], 'messages');
    });
  }

  test('refuses numbers that are out of range, and quotes them', async ({ store }) => {
    for (const value of [0, -1, 1.5, NaN, '5', null] as number[]) {
      await refused(store.messages(value), 'INVALID_OPTION', String(value), `messages(${String(value)})`);
    }
    for (const value of [-1, NaN, '5', null] as number[]) {
      await refused(
        store.deletePublishedByExpiration(value),
        'INVALID_OPTION',
        String(value),
        `expiration ${String(value)}`,
      );
    }
  });
}

const HOUR = 3_600_000;

function delaying<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  test('lists no message before its time, but lists the rest of its key meanwhile', async (harness) => {
    const { store } = harness;
    const messages = [later(HOUR, { key: 'a' }), message({ key: 'a' }), later(HOUR), message()];
    const [, a2, , last] = await stored(harness, messages);
    assertEqual((await drain(store, 1)).sort(), idsOf([a2, last]).sort(), 'drained');
    const [a3] = await stored(harness, [message({ key: 'a' })]);
    assertEqual(await drain(store, 10), idsOf([a3]), 'messages stored later');
  });

  test('lists a message when its time has come', async (harness) => {
    const messages = [later(200, { key: 'a' }), message({ key: 'a' }), later(100), later(100, { key: 'a' })];
    const ids = idsOf(await stored(harness, messages));
    const listed: (string | undefined)[] = [];
    await until(async () => listed.push(...(await drain(harness.store, 2))) >= ids.length, 'all messages');
    assertEqual(listed.sort(), ids.sort(), 'messages');
  });

  test('treats a message whose time has passed like any other', async (harness) => {
    const messages = [{}, { deliverAt: new Date() }, { deliverAt: new Date(0), holdKey: true }, {}];
    const ids = idsOf(
      await stored(
        harness,
        messages.map((options) => message({ key: 'a', ...options })),
      ),
    );
    assertEqual(await drain(harness.store, 3), ids, 'messages');
  });

  test('holds up the key of a message with holdKey from that message on, and no other key', async (harness) => {
    const { store } = harness;
    const hold = { key: 'a', holdKey: true };
    const [a1, , , b1] = await stored(harness, [
      message({ key: 'a' }),
      later(HOUR, hold),
      message({ key: 'a' }),
      message({ key: 'b' }),
    ]);
    assertEqual((await drain(store, 10)).sort(), idsOf([a1, b1]).sort(), 'messages');
    const [, b2] = await stored(harness, [message({ key: 'a' }), message({ key: 'b' })]);
    assertEqual(await drain(store, 10), idsOf([b2]), 'messages stored later');
  });

  test('lists a key in order once the message that holds it is due', async (harness) => {
    const ids = idsOf(
      await stored(harness, [
        later(200, { key: 'a', holdKey: true }),
        message({ key: 'a' }),
        later(100, { key: 'a', holdKey: true }),
        message({ key: 'a' }),
      ]),
    );
    const listed: (string | undefined)[] = [];
    await until(async () => listed.push(...(await drain(harness.store, 1))) >= 4, 'the key that was held');
    assertEqual(listed, ids, 'messages');
  });

  test('keeps the time of delivery, and which message holds its key', async (harness) => {
    const given = await stored(harness, [
      message({ deliverAt: new Date('2020-02-03T04:05:06.789Z') }),
      message({ deliverAt: new Date('0001-01-01T00:00:00.001Z'), key: 'a', holdKey: true }),
      message({ deliverAt: new Date(1), key: 'a', holdKey: false }),
    ]);
    const delivery = ({ deliverAt, holdKey }: Message): unknown => [deliverAt?.toISOString(), holdKey === true];
    assertEqual((await harness.store.messages(10)).map(delivery), given.map(delivery), 'messages');
  });

  test('refuses a message that cannot be delivered later, and stores nothing of the call', async (harness) => {
    const bad: readonly [string, Partial<Record<keyof Message, unknown>>][] = [
      ['deliverAt', { deliverAt: new Date(NaN) }],
      ['deliverAt', { deliverAt: '2020-01-01' }],
      ['deliverAt', { deliverAt: null }],
      ['deliverAt', { deliverAt: new Date(8.64e15) }],
      ['holdKey', { deliverAt: new Date(), key: 'a', holdKey: 1 }],
      ['holdKey', { deliverAt: new Date(), holdKey: true }],
      ['holdKey', { key: 'a', holdKey: true }],
    ];
    await harness.transaction(async (handle) => {
      for (const [name, fields] of bad) {
        const broken = { ...fieldsOnly(message()), ...fields } as Message;
        await refused(harness.store.add(handle, [message(), broken]), 'INVALID_MESSAGE', name, JSON.stringify(fields));
      }
    });
    assertEqual(await harness.store.messages(10), [], 'messages');
  });

  if (!features.persistent) return;
  test('keeps delayed messages across restarts, and when published ones are cleaned', async (harness) => {
    const hold = { key: 'a', holdKey: true };
    const messages = [later(100), later(HOUR, hold), message({ key: 'a' }), message(), later(HOUR)];
    const [one, , , first] = await stored(harness, messages);
    const listed = await drain(harness.store, 10);
    await harness.store.deletePublishedByExpiration(0);
    let store = await needed(harness.reopen, 'reopen')();
    await until(async () => listed.push(...(await drain(store, 10))) >= 2, 'the delayed message');
    store = await needed(harness.reopen, 'reopen')();
    assertEqual(listed.sort(), idsOf([one, first]).sort(), 'messages');
    assertEqual(await store.messages(10), [], 'messages after the second restart');
    const left = await harness.kept();
    assert(
      [1, 2, 4].every((place) => left.includes(messages[place]?.id ?? '')),
      'a delayed message was deleted',
    );
  });
}

function cleaning<Handle>(test: StoreTest<Handle>, features: StoreFeatures): void {
  test('deletes messages that are published and have expired', async (harness) => {
    await stored(harness, some(5, ['a', undefined]));
    await drain(harness.store, 2);
    await cleaned(harness);
  });

  test('keeps messages that have not expired', async (harness) => {
    const messages = await stored(harness, some(3));
    await drain(harness.store, 10);
    await harness.store.deletePublishedByExpiration(60_000);
    assertEqual([...(await harness.kept())].sort(), idsOf(messages).sort(), 'messages kept');
  });

  test('keeps unpublished messages, and lists them in order', async (harness) => {
    const { store } = harness;
    const messages = await stored(harness, some(6, ['a']));
    await store.deletePublishedByExpiration(0);
    assertEqual([...(await harness.kept())].sort(), idsOf(messages).sort(), 'messages kept of none published');
    const listed = await store.messages(10);
    await store.published(listed[1] as Message, listed[2] as Message);
    await store.deletePublishedByExpiration(0);
    const left = idsOf([0, 3, 4, 5].map((place) => messages[place])).map(String);
    const kept = await harness.kept();
    assert(
      left.every((id) => kept.includes(id)),
      'a message that is not published was deleted',
    );
    if (features.cleansSingly) assertEqual([...kept].sort(), [...left].sort(), 'messages kept');
    assertEqual(idsOf(await store.messages(10)), left, 'messages');
    const again = await store.messages(10);
    await store.published(...again.slice(1));
    await store.deletePublishedByExpiration(0);
    assertEqual([...(await harness.kept())], left.slice(0, 1), 'messages kept behind a gap');
    assertEqual(idsOf(await store.messages(10)), left.slice(0, 1), 'messages left');
  });

  test('stores, lists and publishes after cleaning as it did before', async (harness) => {
    for (let round = 0; round < 3; round++) {
      const ids = idsOf(await stored(harness, some(4, ['a', 'b'])));
      assertEqual(await drain(harness.store, 3), ids, `round ${String(round)}`);
      await cleaned(harness);
    }
  });
}

/**
 * Cleans until no messages are kept. If messages are briefly in use, even by the database itself, the next call deletes
 * them.
 */
async function cleaned(harness: Pick<StoreHarness<unknown>, 'store' | 'kept'>): Promise<void> {
  await until(async () => {
    await harness.store.deletePublishedByExpiration(0);
    return (await harness.kept()).length === 0;
  }, 'nothing that is published and expired is kept');
}

/** Lists and publishes until nothing is left. Returns the ids in the order in which they were listed. */
async function drain(store: Store, batch: number): Promise<(string | undefined)[]> {
  const ids: (string | undefined)[] = [];
  for (;;) {
    const listed = await store.messages(batch);
    if (listed.length === 0) return ids;
    ids.push(...idsOf(listed));
    await store.published(...listed);
  }
}

function ofKey(messages: readonly (Message | undefined)[], key: string): (Message | undefined)[] {
  return messages.filter((each) => each?.key === key);
}

/** Returns a message's fields for a comparison. Metadata entries have no order, so they are sorted. */
function fieldsOf({ id, topic, key, at, metadata, payload, published }: Message): unknown {
  return [
    id,
    topic,
    key,
    at.toISOString(),
    Object.entries(metadata).sort(),
    [...payload.slice(0, 2_000)],
    payload.byteLength,
    published,
  ];
}

function fieldsOnly({ id, metadata, payload, published, at }: Message): Message {
  return { id, metadata, payload, published, at };
}

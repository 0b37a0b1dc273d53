/** Reading a received payload with the schema of its topic, and the names of options. */
import { describe, expect, test } from 'vitest';
import { newMessage } from '../../src/core/contracts/message.js';
import { payloadOf } from '../../src/core/outbox/topics.js';
import { checkKeys } from '../../src/core/util/options.js';
import { z } from 'zod';

const topics = {
  order: { version: 3, schema: z.object({ cents: z.number() }), upcast: () => ({ cents: 1 }) },
};
const received = (payload: string | Uint8Array, version?: string) =>
  payloadOf(
    topics,
    newMessage(payload, { topic: 'order', metadata: version === undefined ? {} : { 'schema-version': version } }),
  );

describe('a received payload', () => {
  test('is refused if it has an older version and the topic has no upcast', async () => {
    const { schema, version } = topics.order;
    const old = newMessage('{"cents":42}', { id: 'm1', topic: 'order', metadata: { 'schema-version': '2' } });
    await expect(payloadOf({ order: { schema, version } }, old)).rejects.toMatchObject({
      code: 'INVALID_MESSAGE',
      message: 'message m1 of "order" has version 2, but this consumer has version 3: give the topic an upcast',
    });
  });

  test('is read as it is if it has the version of the topic', async () => {
    expect(await received('{"cents":42}', '3')).toEqual({ cents: 42 });
  });

  test.each(['1', '2', undefined])('is passed to upcast if it has the older version %s', async (version) => {
    expect(await received('{"euros":0.42}', version)).toEqual({ cents: 1 });
  });

  test.each(['0', '-1', '4', 'three', 'NaN', ''])(
    'is refused without calling upcast if it has version %j',
    async (version) => {
      await expect(received('{"cents":42}', version)).rejects.toMatchObject({
        code: 'INVALID_MESSAGE',
        message: expect.stringMatching(/but this consumer has version 3: update the consumer$/) as string,
      });
    },
  );

  test.each([
    ['cut off', '{"cents":'],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22)],
  ])('is refused with the cause if it is %s', async (_, payload) => {
    await expect(received(payload, '3')).rejects.toMatchObject({
      code: 'INVALID_MESSAGE',
      message: expect.stringMatching(/^message \S+ of "order" is not valid JSON$/) as string,
      cause: expect.any(Error) as Error,
    });
  });
});

describe('options', () => {
  test.each([[null], [7], ['fast'], [[1]], [() => undefined]])(
    'are refused if they are %j, because that is not an object',
    (options) => {
      expect(() => {
        checkKeys(options, { interval: true });
      }).toThrow(/^options must be an object, got /);
      expect(() => {
        checkKeys(options, { interval: true }, 'retry');
      }).toThrow(/^retry must be an object, got /);
    },
  );
});

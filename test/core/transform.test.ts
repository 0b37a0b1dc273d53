import { describe, expect, test } from 'vitest';
import { EmptyMessagePayloadError } from '../../src/core/errors.js';
import { newMessage, type Message } from '../../src/core/contracts/message.js';
import { defaultTransform, isMessage, type MessageInput } from '../../src/core/outbox/transform.js';
import { textOf } from './scripted.js';

const invalid = (text: RegExp) =>
  expect.objectContaining({ code: 'INVALID_MESSAGE', message: expect.stringMatching(text) as string }) as Error;
const transform = (input: unknown) => defaultTransform(input as MessageInput);

describe('the default transform', () => {
  test('leaves a ready message as it is, whether it is from this package or not', () => {
    const message = newMessage('x', { key: 'k' });
    expect(transform(message)).toBe(message);
    const foreign: Message = {
      id: '1',
      metadata: {},
      payload: new Uint8Array([1]),
      published: false,
      at: new Date(0),
    };
    expect(transform(foreign)).toBe(foreign);
  });

  test('checks a ready message', () => {
    const message = { published: false, id: '1', metadata: { a: 1 }, at: new Date(), payload: new Uint8Array([1]) };
    expect(() => transform(message)).toThrow(invalid(/metadata\["a"\] must be a string, got 1/));
    expect(() => transform({ ...message, metadata: {}, payload: new Uint8Array() })).toThrow(EmptyMessagePayloadError);
    expect(() => transform({ ...message, metadata: {}, payload: 'text' })).toThrow(invalid(/payload must be bytes/));
  });

  test('makes a payload from bytes and strings, without metadata', () => {
    expect(transform(new Uint8Array([1, 2]))).toMatchObject({ payload: new Uint8Array([1, 2]), metadata: {} });
    expect(textOf(transform('text'))).toBe('text');
    expect(transform('text').metadata).toEqual({});
  });

  test.each([
    [{ order: 1, nested: { at: new Date(0) } }, '{"order":1,"nested":{"at":"1970-01-01T00:00:00.000Z"}}'],
    [{}, '{}'],
    [[1, 'a'], '[1,"a"]'],
    [{ note: null, notes: [null] }, '{"note":null,"notes":[null]}'],
    [{ id: 'domain', payload: 'not a message' }, '{"id":"domain","payload":"not a message"}'],
    [
      new (class Order {
        number = 7;
      })(),
      '{"number":7}',
    ],
    [{ toJSON: () => 'own' }, '"own"'],
  ])('makes JSON from %j', (input, json) => {
    const message = transform(input);
    expect(textOf(message)).toBe(json);
    expect(message.metadata).toEqual({ 'content-type': 'application/json' });
  });

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['an empty string', ''],
    ['no bytes', new Uint8Array()],
  ])('refuses %s as an empty payload', (_, input) => {
    expect(() => transform(input)).toThrow(EmptyMessagePayloadError);
  });

  test.each([
    [42, /cannot make a message from 42 \(number\)/],
    [true, /cannot make a message from true/],
    [10n, /cannot make a message from 10 \(bigint\)/],
    [() => 'x', /cannot make a message from a function/],
    [{ toJSON: () => undefined }, /an object \(Object\) has no JSON form/],
    // What JSON would silently write as {}.
    [Promise.resolve({ order: 1 }), /cannot make JSON from an object \(Promise\)/],
    [new Map([['a', 1]]), /cannot make JSON from an object \(Map\)/],
    [new Set([1]), /cannot make JSON from an object \(Set\)/],
    [new ArrayBuffer(4), /cannot make JSON from an object \(ArrayBuffer\)/],
    [new Error('text'), /cannot make JSON from an object \(Error\)/],
  ])('refuses %s', (input, text) => {
    expect(() => transform(input)).toThrow(invalid(text));
  });

  test('says why an object cannot be JSON', () => {
    const cycle: Record<string, unknown> = {};
    cycle['self'] = [{ again: cycle }];
    for (const [input, why] of [
      [cycle, 'self[0].again is a circular reference'],
      [{ big: 1n }, 'big is a BigInt'],
      [{ 'a b': [0, { total: 7n }] }, '["a b"][1].total is a BigInt'],
    ] as const) {
      expect(() => transform(input)).toThrow(
        expect.objectContaining({
          code: 'INVALID_MESSAGE',
          message: `an object (Object) has no JSON form: ${why}`,
          cause: expect.any(TypeError) as TypeError,
        }),
      );
    }
    const secret = {
      get code(): string {
        throw new Error('4711');
      },
    };
    expect(() => transform(secret)).toThrow('an object (Object) has no JSON form: converting it threw Error');
  });

  test('refuses what JSON would lose or change, and names the path but not the value', () => {
    const unlike: readonly (readonly [unknown, string])[] = [
      [{ items: [{}, {}, { price: Infinity }] }, 'items[2].price is an infinite number'],
      [{ a: { b: Number.NaN } }, 'a.b is NaN'],
      [{ a: new Map([['secret', 1]]) }, 'a is a Map'],
      [{ a: [new Set(['secret'])] }, 'a[0] is a Set'],
      [{ a: [1, undefined] }, 'a[1] is undefined'],
      // eslint-disable-next-line no-sparse-arrays
      [[1, , 3], '[1] is undefined'],
      [{ a: new Date(Number.NaN) }, 'a is an invalid Date'],
      [{ a: /secret/ }, 'a is a RegExp'],
      [{ a: Object.assign(new Error('secret'), { code: 1 }) }, 'a is an Error'],
      [{ a: () => 1 }, 'a is a function'],
      [{ a: Symbol('secret') }, 'a is a symbol'],
      [{ a: new Uint8Array([7]) }, 'a is a Uint8Array'],
      [{ a: new URLSearchParams('secret=1') }, 'a is a URLSearchParams without properties'],
      [{ a: { toJSON: () => ({ b: Number.NaN }) } }, 'a.b is NaN'],
    ];
    for (const [input, why] of unlike) {
      expect(() => transform(input)).toThrow(invalid(new RegExp(`: ${why.replace(/[[\].]/g, '\\$&')}, which JSON`)));
      expect(() => transform(input)).not.toThrow(/secret/);
    }
    expect(textOf(transform({ a: undefined, b: -0, [Symbol('c')]: 1 }))).toBe('{"b":0}');
  });
});

test('isMessage recognizes a message by its fields', () => {
  expect(isMessage(newMessage('x'))).toBe(true);
  for (const other of [null, undefined, 'x', 5, {}, { id: '1', payload: 'x' }]) expect(isMessage(other)).toBe(false);
});

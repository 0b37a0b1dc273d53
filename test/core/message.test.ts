import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { EmptyMessagePayloadError, MessengerError } from '../../src/core/errors.js';
import { GenericMessage, newMessage, type NewMessageOptions } from '../../src/core/contracts/message.js';

const bytes = (...values: number[]) => new Uint8Array(values);
const invalid = (text: RegExp) =>
  expect.objectContaining({ code: 'INVALID_MESSAGE', message: expect.stringMatching(text) as string }) as Error;
const broken = (options: unknown) => () => newMessage('x', options as NewMessageOptions);

/** What `work` throws. */
function thrown(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('newMessage', () => {
  test('takes bytes as they are and a string as UTF-8', () => {
    const payload = bytes(0, 255, 0xed, 0xa0, 0x80);
    expect(newMessage(payload).payload).toBe(payload);
    expect(newMessage('grüße 😀').payload).toEqual(new TextEncoder().encode('grüße 😀'));
    expect(newMessage(Buffer.from('a')).payload).toEqual(Buffer.from('a'));
    expect(newMessage('\u0000').payload).toEqual(bytes(0));
  });

  test('gives a message an id, the time and no metadata, and does not mark it as published', () => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    const message = newMessage('x');
    vi.useRealTimers();
    expect(message).toBeInstanceOf(GenericMessage);
    expect(message.at).toEqual(new Date(1_700_000_000_000));
    expect(message.metadata).toEqual({});
    expect(message.published).toBe(false);
    expect(message.topic).toBeUndefined();
    expect(message.key).toBeUndefined();
  });

  test('keeps the given options', () => {
    const at = new Date(0);
    const message = newMessage('x', { id: 'chosen', at, topic: 't', key: 'k', metadata: { a: 'b' } });
    expect(message).toMatchObject({ id: 'chosen', at, topic: 't', key: 'k', metadata: { a: 'b' } });
  });

  test.each(['', bytes(), undefined, null])('refuses an empty payload: %j', (payload) => {
    const error = thrown(() => newMessage(payload as string));
    expect(error).toBeInstanceOf(EmptyMessagePayloadError);
    expect(error).toMatchObject({ code: 'EMPTY_MESSAGE_PAYLOAD', name: 'EmptyMessagePayloadError' });
  });

  test.each([
    [42, /payload must be bytes .*42 \(number\)/],
    [{ a: 1 }, /payload must be bytes .*an object \(Object\)/],
    [[1, 2], /payload must be bytes .*an array of 2/],
    [true, /payload must be bytes .*true/],
    ['\ud800', /payload must be well-formed Unicode, got "\\ud800"/],
  ])('refuses the payload %j', (payload, text) => {
    expect(() => newMessage(payload as unknown as string)).toThrow(invalid(text));
  });

  test.each([
    [{ id: '' }, /id must be a non-empty string, got ""/],
    [{ id: 7 }, /id must be a non-empty string, got 7/],
    [{ id: 'a\u0000b' }, /id must not contain the character U\+0000, got "a\\u0000b"/],
    [{ topic: '' }, /topic must be a non-empty string or absent, got ""/],
    [{ topic: 'a\udc00' }, /topic must be well-formed Unicode, got "a\\udc00"/],
    [{ key: 5 }, /key must be a non-empty string or absent, got 5/],
    [{ key: null }, /key must be a non-empty string or absent, got null/],
    [{ key: '\ud83d' }, /key must be well-formed Unicode/],
    [{ key: '\u0000' }, /key must not contain the character U\+0000/],
    [{ at: new Date(Number.NaN) }, /at must be a valid Date.*, got an invalid Date/],
    [{ at: '2024-01-01' }, /at must be a valid Date.*, got "2024-01-01"/],
    [{ at: 0 }, /at must be a valid Date.*, got 0/],
    [{ deliverAt: new Date(Number.NaN) }, /deliverAt must be a valid Date.*, got an invalid Date/],
    [{ deliverAt: null }, /deliverAt must be a valid Date.*, got null/],
    [{ holdKey: 1, key: 'k', deliverAt: new Date() }, /holdKey must be true or false, got 1/],
    [{ holdKey: true, deliverAt: new Date() }, /holdKey needs a key/],
    [{ holdKey: true, key: 'k' }, /holdKey needs a deliverAt/],
  ])('refuses %j', (options, text) => {
    expect(broken(options)).toThrow(invalid(text));
  });

  test('never puts the whole of a long value into an error', () => {
    const error = thrown(broken({ key: '\u0000'.repeat(10_000) })) as Error;
    expect(error.message.length).toBeLessThan(1_000);
  });
});

describe('metadata', () => {
  test('is copied', () => {
    const metadata: Record<string, string> = { a: '1' };
    const message = newMessage('x', { metadata });
    metadata['a'] = '2';
    message.setMetadata('b', '3');
    expect(message.metadata).toEqual({ a: '1', b: '3' });
    expect(metadata).toEqual({ a: '2' });
  });

  test('setMetadata replaces a value and can be chained', () => {
    const message = newMessage('x', { metadata: { a: '1' } });
    expect(message.setMetadata('a', '2').setMetadata('b', '').setMetadata('b', '4')).toBe(message);
    expect(message.metadata).toEqual({ a: '2', b: '4' });
  });

  test('treats keys such as __proto__ as plain data', () => {
    const message = newMessage('x').setMetadata('__proto__', 'a').setMetadata('constructor', 'b').setMetadata('1', 'c');
    expect(Object.entries(message.metadata).sort()).toEqual([
      ['1', 'c'],
      ['__proto__', 'a'],
      ['constructor', 'b'],
    ]);
    expect(
      Object.entries(newMessage('x', { metadata: JSON.parse('{"__proto__":"a"}') as Record<string, string> }).metadata),
    ).toEqual([['__proto__', 'a']]);
  });

  test.each([
    [5, /metadata\["k"\] must be a string, got 5 \(number\)/],
    [null, /metadata\["k"\] must be a string, got null/],
    [undefined, /metadata\["k"\] must be a string, got undefined/],
    [{}, /metadata\["k"\] must be a string, got an object \(Object\)/],
    [['a'], /metadata\["k"\] must be a string, got an array of 1/],
    [new Date(0), /metadata\["k"\] must be a string, got the Date 1970-01-01T00:00:00.000Z/],
    [1n, /metadata\["k"\] must be a string, got 1 \(bigint\)/],
    ['a\u0000', /metadata\["k"\] must not contain the character U\+0000, got "a\\u0000"/],
    ['\udfff', /metadata\["k"\] must be well-formed Unicode, got "\\udfff"/],
  ])('names the key and the value that is not text: %o', (value, text) => {
    expect(broken({ metadata: { ok: 'x', k: value } })).toThrow(invalid(text));
    const message = newMessage('x', { metadata: { k: 'before' } });
    expect(() => message.setMetadata('k', value as string)).toThrow(invalid(text));
    expect(message.metadata).toEqual({ k: 'before' });
  });

  test.each([
    ['', /metadata keys must be non-empty strings, got ""/],
    ['a\u0000', /metadata key must not contain the character U\+0000/],
    ['\ud800', /metadata key must be well-formed Unicode/],
  ])('refuses the key %j', (key, text) => {
    expect(() => newMessage('x').setMetadata(key, 'v')).toThrow(invalid(text));
    expect(broken({ metadata: { [key]: 'v' } })).toThrow(invalid(text));
  });

  test.each([
    ['an array', ['a'], /an array of 1/],
    ['a Map', new Map([['a', 'b']]), /an object \(Map\)/],
    ['a string', 'abc', /"abc"/],
    ['a number', 5, /5 \(number\)/],
    ['null', null, /null/],
  ])('refuses %s in place of an object', (_, metadata, text) => {
    expect(broken({ metadata })).toThrow(invalid(/metadata must be an object of strings/));
    expect(broken({ metadata })).toThrow(invalid(text));
  });

  test('errors are MessengerErrors', () => {
    expect(thrown(broken({ key: 1 }))).toBeInstanceOf(MessengerError);
  });
});

describe('ids', () => {
  let uuidv7: () => string;

  // The module keeps the latest time in mind: a new copy, so that no test runs in the future of another.
  beforeEach(async () => {
    vi.resetModules();
    ({ uuidv7 } = await import('../../src/core/util/uuid.js'));
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  const timeOf = (id: string) => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  const RFC_9562 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

  /** Asserts in a loop of its own: an `expect` each would take longer than the rest. */
  function assertIncreasing(ids: readonly string[]): void {
    for (const [i, id] of ids.entries()) {
      if (!RFC_9562.test(id)) throw new Error(`not a UUIDv7: ${id}`);
      if (i > 0 && id <= ids[i - 1]!) throw new Error(`not increasing at ${i}: ${ids[i - 1]!}, ${id}`);
    }
  }

  test('are given to new messages', () => {
    expect(newMessage('x').id).toMatch(RFC_9562);
  });

  test('carry the time in milliseconds', () => {
    vi.useFakeTimers({ now: 0x017f22e279b0 });
    expect(uuidv7()).toMatch(/^017f22e2-79b0-7/);
  });

  test('are valid, unique and increasing for 100,000 in one millisecond, and run only a little ahead of the clock', () => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    const ids = Array.from({ length: 100_000 }, uuidv7);
    assertIncreasing(ids);
    // At least 2,048 ids in the first millisecond, 4,096 in each further one.
    expect(timeOf(ids.at(-1)!)).toBeLessThanOrEqual(1_700_000_000_000 + 1 + Math.ceil((100_000 - 2_048) / 4_096));
  });

  test('keep increasing while the clock steps back, and follow the clock once it has caught up', () => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    const ids = [uuidv7()];
    for (const now of [1_699_999_990_000, 0, 1_699_999_999_999, 1_700_000_000_000]) {
      vi.setSystemTime(now);
      for (let i = 0; i < 5_000; i++) ids.push(uuidv7());
    }
    vi.setSystemTime(1_700_000_100_000);
    ids.push(uuidv7());
    assertIncreasing(ids);
    expect(timeOf(ids.at(-1)!)).toBe(1_700_000_100_000);
  });

  test('each have their own random bits, however many are drawn at once', () => {
    const ids = Array.from({ length: 10_000 }, uuidv7);
    expect(new Set(ids.map((id) => id.slice(19))).size).toBe(10_000);
  });

  test('differ between processes that start in the same millisecond', async () => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    const mine = Array.from({ length: 1_000 }, uuidv7);
    vi.resetModules();
    const other = await import('../../src/core/util/uuid.js');
    const theirs = Array.from({ length: 1_000 }, other.uuidv7);
    expect(new Set([...mine, ...theirs]).size).toBe(2_000);
  });
});

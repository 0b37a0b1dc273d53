/** How errors are told in one line, and which of them count as similar. */
import { describe, expect, it, test } from 'vitest';
import { durationOf, textOf } from '../../src/core/util/error-text.js';
import { signatureOf } from '../../src/core/util/error-signature.js';

const caused = (message: string, cause: unknown) => new Error(message, { cause });

describe('the text of an error', () => {
  it.each([
    ['its message, without the space around it', new Error('  no broker\n'), 'no broker'],
    ['its message and its causes', caused('send', caused('connect', new Error('refused'))), 'send: connect: refused'],
    ['no cause that the message contains', caused('send: refused', new Error('refused')), 'send: refused'],
    ['its causes alone if it has no message', caused('', new Error('refused')), 'refused'],
    ['each of several errors once', new AggregateError([new Error('a'), new Error('b'), new Error('a')]), 'a; b'],
    [
      'its message, and each of several errors',
      new AggregateError([new Error('a'), new Error('b')], 'two'),
      'two: a; b',
    ],
    [
      'the first four of many errors',
      new AggregateError(['a', 'b', 'c', 'd', 'e'].map((x) => new Error(x))),
      'a; b; c; d',
    ],
    [
      'its code if there is no message',
      Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }),
      'ECONNREFUSED',
    ],
    ['its name if there is nothing else', new TypeError(''), 'TypeError'],
    ['its name if its message is no string', Object.assign(new Error('x'), { message: 7 }), 'Error'],
    [
      'a message that is no string, told by its cause',
      Object.assign(caused('x', new Error('y')), { message: {} }),
      'y',
    ],
    ['errors that are no list, left out', Object.assign(new Error('x'), { errors: 'abc' }), 'x'],
  ])('is %s', (_, error, text) => {
    expect(textOf(error)).toBe(text);
  });

  it('says once what was thrown if that is not an Error', () => {
    expect(textOf('no broker').match(/no broker/g)).toHaveLength(1);
  });

  it('ends a cycle of causes, and a long chain after five levels', () => {
    const cycle = new Error('a');
    cycle.cause = caused('b', cycle);
    expect(textOf(cycle)).toBe('a: b: a: b: a: b');
    const chain = ['f', 'e', 'd', 'c', 'b', 'a'].reduce<Error>((cause, text) => caused(text, cause), new Error('g'));
    expect(textOf(chain)).toBe('a: b: c: d: e: f');
  });
});

describe('the signature of a failure', () => {
  const alike = (a: string, b: string) =>
    signatureOf(new Error(a), 'permanent') === signatureOf(new Error(b), 'permanent');

  it.each([
    ['quoted values', 'no queue "orders"', 'no queue "bills"'],
    ['values in single quotes', "no queue 'orders'", "no queue 'bills'"],
    ['values in backquotes', 'no queue `orders`', 'no queue `bills`'],
    ['the kind of quotes', 'no queue "orders"', "no queue 'orders'"],
    ['numbers', 'failed after 12 ms', 'failed after 7 ms'],
    ['words with a digit', 'request a1-b2 failed', 'request c3 failed'],
    ['what comes after 300 characters', `${'x'.repeat(300)}a`, `${'x'.repeat(300)}b`],
  ])('ignores %s', (_, a, b) => {
    expect(alike(a, b)).toBe(true);
  });

  it.each([
    ['other words', 'no queue', 'no topic'],
    ['words between quoted values', '"a" is not "b"', '"a" and "b"'],
    ['a quoted value and none', 'no queue "orders"', 'no queue '],
    ['what comes before 300 characters', `${'x'.repeat(299)}a`, `${'x'.repeat(299)}b`],
  ])('tells apart %s', (_, a, b) => {
    expect(alike(a, b)).toBe(false);
  });
});

test.each([
  [0.4, '0 ms'],
  [999, '999 ms'],
  [1_000, '1 s'],
  [1_540, '1.5 s'],
  [9_499, '9.5 s'],
  [9_500, '10 s'],
  [119_499, '119 s'],
  [119_500, '2 min'],
  [7_170_000, '2 h'],
])('%d ms is told as %s', (ms, text) => {
  expect(durationOf(ms)).toBe(text);
});

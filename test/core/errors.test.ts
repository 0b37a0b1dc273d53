import { describe, expect, test } from 'vitest';
import {
  codeOf,
  EmptyMessagePayloadError,
  FatalError,
  hasCode,
  MessengerError,
  PublishError,
  toError,
} from '../../src/core/errors.js';
import { failureKind } from '../../src/core/publish/failure-kinds.js';

describe('errors', () => {
  const cause = new Error('the store said so');

  test.each([
    [new MessengerError('TIMEOUT', 'text', { cause }), 'TIMEOUT', 'MessengerError', cause],
    [new FatalError('text', { cause }), 'FATAL', 'FatalError', cause],
    [new PublishError('text', { kind: 'permanent', cause }), 'PUBLISH_FAILED', 'PublishError', cause],
    [new EmptyMessagePayloadError('text'), 'EMPTY_MESSAGE_PAYLOAD', 'EmptyMessagePayloadError', undefined],
  ])('%s has its code, name and cause', (error, code, name, why) => {
    expect(error).toBeInstanceOf(MessengerError);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ code, name, message: 'text' });
    expect(error.cause).toBe(why);
    expect(error.stack).toContain('errors.test');
  });

  test('have no property cause if no cause is given', () => {
    expect('cause' in new FatalError('text')).toBe(false);
  });
});

describe('the code of an error', () => {
  test('is found whatever the class of the error is', () => {
    const ofAnotherCopy = Object.assign(new Error('x'), { code: 'TIMEOUT' });
    expect(codeOf(ofAnotherCopy)).toBe('TIMEOUT');
    expect(hasCode(ofAnotherCopy, 'FATAL', 'TIMEOUT')).toBe(true);
    expect(hasCode(ofAnotherCopy, 'FATAL')).toBe(false);
  });

  test.each([
    [null],
    [undefined],
    ['TIMEOUT'],
    [new Error('x')],
    [{ code: 'ECONNREFUSED' }],
    [{ code: 'toString' }],
    [{ code: 7 }],
    [{ code: ['TIMEOUT'] }],
  ])('is absent for %o, which this package never throws', (error) => {
    expect(codeOf(error)).toBeUndefined();
    expect(hasCode(error, 'TIMEOUT')).toBe(false);
  });
});

describe('failureKind', () => {
  test('is the kind that the error itself has, whatever its class', () => {
    expect(failureKind(new PublishError('x', { kind: 'permanent' }))).toBe('permanent');
    expect(failureKind(new PublishError('x', { kind: 'connection' }))).toBe('connection');
    expect(failureKind(Object.assign(new Error('of another copy'), { kind: 'connection' }))).toBe('connection');
    expect(failureKind({ kind: 'permanent' })).toBe('permanent');
  });

  test.each([new Error('x'), { kind: 'other' }, { kind: 7 }, {}, null, undefined, 'permanent', 5])(
    'is retryable for %o, because trying again loses nothing',
    (error) => {
      expect(failureKind(error)).toBe('retryable');
    },
  );
});

describe('toError', () => {
  test('leaves an Error as it is', () => {
    const error = new TypeError('x');
    expect(toError(error)).toBe(error);
  });

  test.each([
    ['text', 'text'],
    [5, 'a value that is not an Error was thrown: 5'],
    [undefined, 'a value that is not an Error was thrown: undefined'],
    [Symbol('s'), 'a value that is not an Error was thrown: Symbol(s)'],
  ])('makes an Error from %o', (thrown, message) => {
    expect(toError(thrown)).toMatchObject({ message, cause: thrown });
  });

  test('makes an Error from a value without text', () => {
    const thrown: unknown = Object.create(null);
    expect(toError(thrown)).toMatchObject({
      message: 'a value that is not an Error was thrown: an object',
      cause: thrown,
    });
  });
});

import { describe, expect, test } from 'vitest';
import { EmptyMessagePayloadError, FatalError, MessengerError, PublishError, toError } from '../../src/core/errors.js';
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

  test('an error without a cause has no such property', () => {
    expect('cause' in new FatalError('text')).toBe(false);
  });
});

describe('failureKind', () => {
  test('is what the error says of itself, whichever class it is of', () => {
    expect(failureKind(new PublishError('x', { kind: 'permanent' }))).toBe('permanent');
    expect(failureKind(new PublishError('x', { kind: 'connection' }))).toBe('connection');
    expect(failureKind(Object.assign(new Error('of another copy'), { kind: 'connection' }))).toBe('connection');
    expect(failureKind({ kind: 'permanent' })).toBe('permanent');
  });

  test.each([new Error('x'), { kind: 'other' }, { kind: 7 }, {}, null, undefined, 'permanent', 5])(
    'is retryable for %o, since trying again loses nothing',
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
  ])('makes one of %o', (thrown, message) => {
    expect(toError(thrown)).toMatchObject({ message, cause: thrown });
  });

  test('makes one of what has no text', () => {
    const thrown: unknown = Object.create(null);
    expect(toError(thrown)).toMatchObject({
      message: 'a value that is not an Error was thrown: an object',
      cause: thrown,
    });
  });
});

/** What the error logger is told: of outages, of what fails alike, and in which words. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { systemClock, type Clock } from '../../src/core/util/clock.js';
import { durationOf, textOf } from '../../src/core/util/error-text.js';
import { FatalError, MessengerError, PublishError } from '../../src/core/errors.js';
import { consoleErrorLogger, consoleLogger, safeLogger } from '../../src/core/contracts/logger.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { Alike, Outages } from '../../src/core/relay/outages.js';
import { ListFeedStore, recordingLogger, refusal, scripted, started } from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const coded = (message: string, code: string, more: object = {}) =>
  Object.assign(new Error(message), { code, ...more });

/** As Node has it of `localhost` where nobody listens. */
const refusedTwice = () =>
  Object.assign(
    new AggregateError([
      coded('connect ECONNREFUSED ::1:5432', 'ECONNREFUSED'),
      coded('connect ECONNREFUSED 127.0.0.1:5432', 'ECONNREFUSED'),
    ]),
    { code: 'ECONNREFUSED' },
  );

describe('the text of an error', () => {
  test.each<[string, unknown, string]>([
    ['is its message', new Error('busy'), 'busy'],
    [
      'has the messages in an AggregateError',
      refusedTwice(),
      'connect ECONNREFUSED ::1:5432; connect ECONNREFUSED 127.0.0.1:5432',
    ],
    [
      'has the messages of causes that it does not repeat',
      new Error('fetch failed', { cause: new Error('', { cause: refusedTwice() }) }),
      'fetch failed: connect ECONNREFUSED ::1:5432; connect ECONNREFUSED 127.0.0.1:5432',
    ],
    [
      'leaves out the messages of causes that it repeats',
      new Error('not done: busy', { cause: new Error('busy') }),
      'not done: busy',
    ],
    ['is its code if it has no message', coded('', 'ECONNRESET'), 'ECONNRESET'],
    ['is its name if it has neither message nor code', new RangeError(''), 'RangeError'],
    ['is the string that was thrown', 'a string', 'a string'],
    [
      'hides the password in a URL',
      new Error('no host in postgres://me:p@ss:w/rd@db/x now'),
      'no host in postgres://me:***@db/x now',
    ],
    [
      'hides the password in a connection string',
      new Error("host=db password='a b' user=me"),
      'host=db password=*** user=me',
    ],
  ])('%s', (_, error, text) => {
    expect(textOf(error)).toBe(text);
  });

  test('ends if the causes are circular', () => {
    const error = new Error('');
    error.cause = error;
    expect(textOf(error)).toBe('Error');
  });

  test('shows durations in readable units', () => {
    expect([0, 450, 2_000, 2_340, 13_400, 61_000, 600_000, 10_800_000].map(durationOf)).toEqual([
      '0 ms',
      '450 ms',
      '2 s',
      '2.3 s',
      '13 s',
      '61 s',
      '10 min',
      '3 h',
    ]);
  });

  test('names the causes if the datastore cannot be reached', async () => {
    const store = new ListFeedStore();
    store.fault = () => {
      throw refusedTwice();
    };
    const starting = new Messenger(store, scripted()).start();
    await expect(starting).rejects.toThrow(
      new FatalError(
        'the datastore cannot be reached: connect ECONNREFUSED ::1:5432; connect ECONNREFUSED 127.0.0.1:5432',
      ),
    );
  });
});

describe('the console', () => {
  const lines = () => vi.spyOn(console, 'error').mockReturnValue();
  const printed = (spy: ReturnType<typeof lines>) =>
    spy.mock.calls.map(([line]) => String(line).replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z /, 'TIME '));

  test('prints one line for a system error, with the time and the relay’s name', () => {
    const spy = lines();
    consoleErrorLogger.error(new MessengerError('TIMEOUT', 'too\n  late', { cause: refusedTwice() }));
    consoleLogger('orders').error(coded('connect ECONNREFUSED', 'ECONNREFUSED'));
    consoleErrorLogger.info?.('the broker answers again');
    expect(printed(spy)).toEqual([
      'TIME messenger-outbox: too late: connect ECONNREFUSED ::1:5432; connect ECONNREFUSED 127.0.0.1:5432',
      'TIME messenger-outbox (orders): connect ECONNREFUSED',
      'TIME messenger-outbox: the broker answers again',
    ]);
  });

  test('prints the stack of a bug once', () => {
    const spy = lines();
    const logger = consoleLogger();
    for (let i = 0; i < 3; i++) {
      logger.error(refusal('retryable', `message ${i}`));
      logger.error(new MessengerError('FATAL', `not ${i}`, { cause: new TypeError(`item ${i} is not iterable`) }));
    }
    const [, bug, ...more] = printed(spy);
    expect(bug).toMatch(/^TIME messenger-outbox: not 0: item 0 is not iterable\nTypeError: item 0 .*\n +at /);
    expect(more.filter((line) => line.includes('\n'))).toEqual([]);
    expect(more).toHaveLength(4);
  });

  test('prints the destination of a relay', async () => {
    const spy = lines();
    const store = new ListFeedStore();
    store.add('a1');
    const publisher = scripted(() => Promise.reject(refusal('permanent')));
    const relay = started(new Messenger(store, publisher, { destination: 'orders' }));
    await vi.waitUntil(() => store.dead.length === 1);
    await relay.stop();
    expect(printed(spy)).toEqual([
      expect.stringMatching(/^TIME messenger-outbox \(orders\): message .* is a dead letter: permanent$/),
    ]);
  });

  test('can be replaced by a logger without info or a logger that throws', () => {
    const logger = safeLogger({ error: () => undefined });
    logger.info?.('over');
    safeLogger({ error: () => undefined, info: () => expect.unreachable() }).info?.('over');
  });

  test('can be replaced by an asynchronous logger, whose rejections are ignored, whatever its promises are', () => {
    const ignored = vi.fn();
    // A promise of a library, not of the language.
    const then = (_: unknown, reject: (reason: Error) => unknown) => {
      ignored(reject(new Error('the disk is full')));
    };
    const logger = safeLogger({ error: () => ({ then }), info: () => Promise.reject(new Error('the disk is full')) });
    logger.error(new Error('x'));
    logger.info?.('over');
    return vi.waitFor(() => {
      expect(ignored).toHaveBeenCalledOnce();
    });
  });
});

describe('an outage', () => {
  function outages(of: 'broker' | 'datastore' = 'broker') {
    let time = 0;
    const told: string[] = [];
    const codes: unknown[] = [];
    const clock: Clock = { now: () => time, setTimeout: () => () => undefined, random: () => 1 };
    const logger = {
      error: (error: Error) => {
        told.push(error.message);
        codes.push('code' in error ? error.code : undefined);
      },
      info: (text: string) => void told.push(text),
    };
    return { self: new Outages(of, logger, clock), told, codes, pass: (ms: number) => (time += ms) };
  }
  const refused = coded('connect ECONNREFUSED 127.0.0.1:9092', 'ECONNREFUSED');

  test('is logged when it starts, once a minute, and when it is over', () => {
    const { self, told, pass } = outages();
    for (let i = 0; i <= 65; i++) {
      self.failed(refused, 2_000);
      pass(2_000);
    }
    self.over();
    self.over();
    expect(told).toEqual([
      'the broker does not answer: connect ECONNREFUSED 127.0.0.1:9092, trying again in 2 s',
      'the broker has not answered for 60 s (attempts: 31): connect ECONNREFUSED 127.0.0.1:9092, trying again in 2 s',
      'the broker has not answered for 2 min (attempts: 61): connect ECONNREFUSED 127.0.0.1:9092, trying again in 2 s',
      'the broker answers again after 2 min (attempts: 66)',
    ]);
    expect(self.status).toBeUndefined();
  });

  test('of a broker is logged as a failure of the connection, with its cause', () => {
    const errorLogger = recordingLogger();
    new Outages('broker', errorLogger, systemClock).failed(refused, 50);
    expect(errorLogger.errors).toEqual([expect.any(PublishError)]);
    expect(errorLogger.errors[0]).toMatchObject({ kind: 'connection', cause: refused });
  });

  test('is logged at once with the new reason when its reason changes', () => {
    const { self, told, pass } = outages('datastore');
    self.failed(refused, 50);
    pass(100);
    self.failed(coded('password authentication failed for user "me"', '28P01'), 100);
    pass(900);
    self.failed(refused, 200);
    self.over();
    expect(told).toEqual([
      'the datastore does not answer: connect ECONNREFUSED 127.0.0.1:9092, trying again in 50 ms',
      'the datastore has failed for 100 ms (attempts: 2): password authentication failed for user "me", trying again in 100 ms',
      'the datastore answers again after 1 s (attempts: 3)',
    ]);
  });

  test('is logged only a few times a minute if it comes and goes', () => {
    const { self, told, pass } = outages();
    for (let i = 0; i < 600; i++) {
      self.failed(refused, 100);
      pass(100);
      self.over();
    }
    expect(told.length).toBeLessThanOrEqual(12);
    self.failed(refused, 100);
    pass(60_000);
    self.failed(refused, 100);
    expect(told.at(-1)).toMatch(/^the broker has not answered for 60 s/);
  });

  test('of a datastore is logged by the relay and shown in its status', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    const errorLogger = {
      ...recordingLogger(),
      infos: [] as string[],
      info: (text: string) => void errorLogger.infos.push(text),
    };
    const messenger = new Messenger(store, scripted(), { errorLogger });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(messenger.datastore).toEqual({ state: 'working' });
    store.fault = () => {
      throw refused;
    };
    await vi.advanceTimersByTimeAsync(13_000);
    expect(messenger.datastore).toMatchObject({ state: 'failing', since: expect.any(Date) as Date, error: refused });
    store.fault = () => undefined;
    await vi.advanceTimersByTimeAsync(5_000);
    expect(messenger.datastore).toEqual({ state: 'working' });
    expect(errorLogger.text()).toMatch(
      /^the datastore does not answer: connect ECONNREFUSED 127.0.0.1:9092, trying again in \d+ ms$/,
    );
    expect(errorLogger.errors[0]).toMatchObject({ code: 'DATASTORE_FAILED', cause: refused });
    expect(errorLogger.infos).toEqual([
      expect.stringMatching(/^the datastore answers again after \d+ s \(attempts: \d+\)$/),
    ]);
    await relay.stop();
  });

  test.each<[string, Error]>([
    ['UNSUPPORTED', new MessengerError('UNSUPPORTED', 'a standby')],
    ['TIMEOUT', new MessengerError('TIMEOUT', 'no answer')],
    ['NOT_ALLOWED', new MessengerError('NOT_ALLOWED', 'no privilege')],
    ['DATASTORE_FAILED', coded('not of ours', 'NOT_OF_OURS')],
    ['DATASTORE_FAILED', new Error('no code')],
  ])('of a datastore has the code %s of its reason', (code, error) => {
    const { self, codes } = outages('datastore');
    self.failed(error, 50);
    expect(codes).toEqual([code]);
  });
});

/** Ninety messages, of which a third fails: few enough among the others that the broker works. */
function busyOutbox() {
  const store = new ListFeedStore();
  for (let i = 0; i < 60; i++) store.add(...(i % 2 ? [`p${'x'.repeat(i)}1`] : [`-${i}`, `-${i}x`]));
  const publisher = scripted((text) => {
    if (text.startsWith('p')) throw new Error(`busy with ${text}`);
  });
  return { store, publisher, errorLogger: recordingLogger() };
}

describe('similar failures', () => {
  test('are logged ten times a minute and then counted, while other failures are logged at once', () => {
    let time = 0;
    const clock: Clock = { now: () => time, setTimeout: () => () => undefined, random: () => 1 };
    const errorLogger = recordingLogger();
    const alike = new Alike(errorLogger, clock);
    for (let i = 0; i < 100; i++) alike.tellError(new Error(`message ${i} is busy`));
    alike.tellError(new Error('something else'));
    expect(errorLogger.errors).toHaveLength(11);
    time = 60_000;
    for (let i = 100; i < 200; i++) alike.tellError(new Error(`message ${i} is busy`));
    expect(errorLogger.errors.slice(11).map(({ message }) => message)).toEqual([
      'message 100 is busy (and 90 more like it in 60 s)',
    ]);
  });

  test('of messages are counted by a relay, and logged with kind and cause', async () => {
    vi.useFakeTimers();
    const { store, publisher, errorLogger } = busyOutbox();
    const retry = { minDelay: 1_000, maxDelay: 1_000, maxAttempts: Infinity };
    const relay = started(new Messenger(store, publisher, { errorLogger, retry }));
    await vi.advanceTimersByTimeAsync(65_000);
    await relay.stop();
    expect(errorLogger.errors).toHaveLength(11);
    const text = /^message \S+ was not published \(attempt \d+, next in \d+ ms\): (busy with px+1)(.*)$/;
    const told = errorLogger.errors.map((error) => ({ error, match: text.exec(error.message) }));
    for (const { error, match } of told) {
      expect(error).toMatchObject({ kind: 'retryable', cause: { message: match?.[1] } });
    }
    expect(told.map(({ match }) => match?.[2])).toEqual([
      ...Array.from({ length: 10 }, () => ''),
      expect.stringMatching(/^ \(and \d+ more like it in 6\d s\)$/),
    ]);
  });

  test('of messages are logged so by a relay, which always logs the messages that it gives up', async () => {
    vi.useFakeTimers();
    const { store, publisher, errorLogger } = busyOutbox();
    const retry = { minDelay: 1_000, maxDelay: 1_000, maxAttempts: 5 };
    const relay = started(new Messenger(store, publisher, { errorLogger, retry }));
    await vi.advanceTimersByTimeAsync(30_000);
    await relay.stop();
    expect(store.dead).toHaveLength(30);
    const dead = errorLogger.errors.filter(({ message }) => message.includes('is a dead letter after 5 attempts'));
    expect(dead).toHaveLength(30);
    expect(errorLogger.errors.length - dead.length).toBeLessThanOrEqual(10);
  });
});

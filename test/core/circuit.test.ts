/** When publishing pauses as a whole, when it goes on, and what is made of failures that may be the broker's. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Calls } from '../../src/core/publish/calls.js';
import { Circuit, type CircuitListener } from '../../src/core/publish/circuit-breaker.js';
import type { Clock } from '../../src/core/util/clock.js';
import type { MessengerEvent } from '../../src/core/contracts/events.js';
import { Messenger } from '../../src/core/relay/messenger.js';
import { newMessage } from '../../src/core/contracts/message.js';
import { ListFeedStore, recordingLogger, refusal, scripted, scriptedBatch, started, textOf } from './scripted.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

function storeOf(...texts: readonly string[]): ListFeedStore {
  const store = new ListFeedStore();
  store.add(...texts);
  return store;
}

/** Adds messages without a key of a topic. */
function addOf(store: ListFeedStore, topic: string, ...texts: readonly string[]): void {
  store.log.push(...texts.map((text) => newMessage(text, { topic })));
}

describe('a circuit', () => {
  const outage = { error: new Error('down'), signature: 'down', certain: true };

  function circuit() {
    let time = 0;
    const told: string[] = [];
    const clock: Clock = { now: () => time, setTimeout: () => () => undefined, random: () => 1 };
    const listener: CircuitListener = {
      paused: (reason, _, failures, retryIn) =>
        void told.push(`paused ${reason} ${failures} ${Math.round(retryIn ?? -1)}`),
      resumed: (reason, pausedFor) => void told.push(`resumed ${reason} after ${pausedFor}`),
    };
    const self = new Circuit({ clock, backoff: { minDelay: 100, maxDelay: 1_000 }, listener });
    return { self, told, pass: (to: number) => (time = to) };
  }

  test('opens, lets one request through as a probe, and closes when something is acknowledged', () => {
    const { self, told, pass } = circuit();
    expect(self.status).toEqual({ state: 'closed', failures: 0 });
    self.leave(self.tryEnter(false)!, { acknowledged: false, outage });
    expect(self.status).toMatchObject({ state: 'open', failures: 1, error: outage.error });
    expect(self.tryEnter(false)).toBeUndefined();
    pass(100);
    const probe = self.tryEnter(false)!;
    expect(probe.probe).toBe(true);
    expect(self.status.state).toBe('half-open');
    expect(self.tryEnter(false)).toBeUndefined();
    self.leave(probe, { acknowledged: true });
    expect(self.status).toEqual({ state: 'closed', failures: 0 });
    expect(told).toEqual(['paused broker 1 100', 'resumed broker after 100']);
  });

  test('waits for a silent probe until the next may go, even if the next becomes due before the wait starts', async () => {
    // Each look at the clock takes some time: what becomes due between two of them must not be waited for without end.
    let [time, step] = [0, 1];
    const waits: number[] = [];
    const clock: Clock = {
      now: () => (time += step),
      setTimeout: (callback, ms) => {
        waits.push(ms);
        queueMicrotask(callback);
        return () => undefined;
      },
      random: () => 1,
    };
    const calls = new Calls(clock);
    const silent = calls.tooLate(calls.begin(), 100);
    const listener: CircuitListener = { paused: () => undefined, resumed: () => undefined };
    const self = new Circuit({ clock, backoff: { minDelay: 10, maxDelay: 10 }, listener });
    self.leave(self.tryEnter(false)!, {
      acknowledged: false,
      outage: { error: silent, signature: 'silent', certain: true },
    });
    for (let probe = 0; probe < 50; probe++) {
      step = 0.5 + probe / 20;
      const over = new AbortController();
      const entering = self.enter(false, over.signal);
      const pass = await Promise.race([entering, new Promise((resolve) => setTimeout(resolve, 1_000))]);
      over.abort();
      expect(pass, `probe ${probe}, after waits of ${waits.join(', ')} ms`).toEqual({ probe: true, opened: 1 });
    }
    expect(waits.every((ms) => ms < Infinity)).toBe(true);
  });

  test('waits longer each time, up to its longest pause, whatever else fails meanwhile', () => {
    const { self, told, pass } = circuit();
    const [one, other] = [self.tryEnter(false)!, self.tryEnter(false)!];
    self.leave(one, { acknowledged: false, outage });
    // It was sent before: it is the same failure.
    self.leave(other, { acknowledged: false, outage });
    for (let time = 1_000; time < 8_000; time += 1_000) {
      pass(time);
      self.leave(self.tryEnter(false)!, { acknowledged: false, outage });
    }
    expect(told.slice(0, 6)).toEqual([100, 200, 400, 800, 1_000, 1_000].map((ms, i) => `paused broker ${i + 1} ${ms}`));
  });

  test('is not closed by a request that was sent before it opened', () => {
    const { self } = circuit();
    const [early, failing] = [self.tryEnter(false)!, self.tryEnter(false)!];
    self.leave(failing, { acknowledged: false, outage });
    self.leave(early, { acknowledged: true });
    expect(self.status.state).toBe('open');
  });

  test('lets another request be the probe if the first was not sent', () => {
    const { self, pass } = circuit();
    self.leave(self.tryEnter(false)!, { acknowledged: false, outage });
    pass(500);
    self.leave(self.tryEnter(false)!);
    expect(self.status).toMatchObject({ state: 'open', failures: 1 });
    expect(self.tryEnter(false)?.probe).toBe(true);
  });

  test('lets a waiting request through, even if the pause ends just before the wait starts', async () => {
    let time = 0;
    const timers: number[] = [];
    const clock: Clock = {
      now: () => (time += 60),
      setTimeout(callback, ms) {
        timers.push(ms);
        queueMicrotask(callback);
        return () => undefined;
      },
      random: () => 1,
    };
    const listener: CircuitListener = { paused: () => undefined, resumed: () => undefined };
    const self = new Circuit({ clock, backoff: { minDelay: 100, maxDelay: 1_000 }, listener });
    self.leave(self.tryEnter(false)!, { acknowledged: false, outage });
    const pass = await Promise.race([self.enter(false), new Promise((resolve) => setImmediate(resolve, 'waits'))]);
    expect(pass).toMatchObject({ probe: true });
    expect(timers.every((ms) => ms > 0)).toBe(true);
  });

  test('reports dates by the wall clock, and measures time by the monotonic clock', () => {
    vi.useFakeTimers({ now: 5_000_000 });
    const { self, pass } = circuit();
    pass(1_000);
    self.leave(self.tryEnter(false)!, { acknowledged: false, outage });
    expect([self.status.since?.getTime(), self.status.retryAt?.getTime()].map(Math.round as never)).toEqual([
      5_000_000, 5_000_100,
    ]);
    vi.setSystemTime(1_000);
    expect(self.status.since?.getTime()).toBe(1_000);
    expect(self.tryEnter(false)).toBeUndefined();
  });
});

describe('a broker that is down', () => {
  test('gets only a few probes, one request at a time, whatever is in flight', async () => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 400));
    let down = true;
    let inFlight = 0;
    const publisher = scriptedBatch(async (text) => {
      if (down) throw refusal('connection', 'no broker');
      return text;
    });
    const sizes: number[] = [];
    const batch = publisher.publishBatch.bind(publisher);
    publisher.publishBatch = async (messages, options) => {
      sizes.push(messages.length);
      inFlight += 1;
      if (down && sizes.length > 3) expect(inFlight).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 10));
      inFlight -= 1;
      return batch(messages, options);
    };
    const events: MessengerEvent[] = [];
    const messenger = new Messenger(store, publisher, {
      pipelineDepth: 3,
      errorLogger: recordingLogger(),
      onEvent: (event) => void events.push(event),
    });
    const relay = started(messenger);
    expect(messenger.circuit).toEqual({ state: 'closed', failures: 0 });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sizes.slice(0, 3)).toEqual([100, 100, 100]);
    expect(new Set(sizes.slice(3))).toEqual(new Set([10]));
    expect(messenger.circuit).toMatchObject({ error: { message: 'no broker' } });
    expect(messenger.circuit.failures).toBe(sizes.length - 2);
    expect(store.parked.size).toBe(0);
    down = false;
    await vi.advanceTimersByTimeAsync(61_000);
    expect(store.isDone).toBe(true);
    expect(messenger.circuit).toEqual({ state: 'closed', failures: 0 });
    expect(events.filter(({ type }) => type === 'resumed')).toHaveLength(1);
    const pauses = events.filter(({ type }) => type === 'paused');
    expect(pauses).toHaveLength(sizes.filter((size) => size === 10).length);
    expect(pauses[0]).toEqual({
      type: 'paused',
      destination: 'default',
      reason: 'broker',
      error: expect.objectContaining({ message: 'no broker' }) as Error,
      failures: 1,
      retryIn: expect.any(Number) as number,
    });
    await relay.stop();
  });

  test('is down only for the relay that sees it fail', async () => {
    vi.useFakeTimers();
    const [one, other] = [storeOf('a1'), storeOf('a1')];
    const errorLogger = recordingLogger();
    const down = scripted(() => Promise.reject(refusal('connection', 'no broker')));
    const up = scripted();
    const [first, second] = [new Messenger(one, down, { errorLogger }), new Messenger(other, up, { errorLogger })];
    const relays = [started(first), started(second)];
    await vi.advanceTimersByTimeAsync(10_000);
    expect(up.acknowledged).toEqual(['a1']);
    expect([first.circuit.state, second.circuit.state]).toEqual([expect.not.stringMatching('closed'), 'closed']);
    await Promise.all(relays.map(({ stop }) => stop()));
  });

  test('is not probed with messages that failed before while new messages can be sent', async () => {
    vi.useFakeTimers();
    const store = storeOf('p1', 'a1', 'b1');
    const publisher = scriptedBatch((text) => {
      if (text === 'p1') throw new Error('poison');
      if (text.startsWith('n') && down) throw refusal('connection', 'no broker');
    });
    let down = true;
    const relay = started(
      new Messenger(store, publisher, {
        interval: 10,
        retry: { minDelay: 100, maxDelay: 100, maxAttempts: Infinity },
        errorLogger: recordingLogger(),
      }),
    );
    await vi.advanceTimersByTimeAsync(500);
    store.add('n1');
    await vi.advanceTimersByTimeAsync(100);
    const before = publisher.sent.filter((text) => text === 'p1').length;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(publisher.sent.filter((text) => text === 'p1').length).toBe(before);
    down = false;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(publisher.acknowledged).toContain('n1');
    await relay.stop();
  });
});

describe('most of a batch that is refused alike', () => {
  const options = () => ({ retry: { minDelay: 100, maxDelay: 1_000 }, errorLogger: recordingLogger() });

  test.each([
    ['a permission that was revoked', (text: string) => `User 123 may not publish ${text} to "orders"`],
    ['a topic that was deleted', () => 'no such topic'],
  ])('counts as a broker failure: %s makes no dead letter, and publishing resumes afterwards', async (_, reason) => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 150));
    let revoked = false;
    const publisher = scriptedBatch((text) => {
      if (revoked) throw refusal('permanent', reason(text));
    });
    const messenger = new Messenger(store, publisher, { ...options(), publishBatchSize: 50 });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(store.isDone).toBe(true);
    revoked = true;
    store.add(...numbered('-', 350));
    await vi.advanceTimersByTimeAsync(600_000);
    expect(messenger.circuit.state).not.toBe('closed');
    expect(store.dead).toEqual([]);
    expect(publisher.acknowledged).toHaveLength(150);
    revoked = false;
    await vi.advanceTimersByTimeAsync(400_000);
    expect(store.isDone).toBe(true);
    expect(store.dead).toEqual([]);
    expect(publisher.acknowledged).toHaveLength(500);
    await relay.stop();
  });

  test('makes three dead letters with one message a page, and opens the circuit at the fourth', async () => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 30));
    let refuses = true;
    const publisher = scriptedBatch((text) => {
      if (refuses) throw refusal('permanent', `no topic for ${text}`);
    });
    const messenger = new Messenger(store, publisher, { ...options(), publishBatchSize: 1, pipelineDepth: 1 });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(store.dead).toEqual(['-0', '-1', '-2']);
    expect(messenger.circuit.state).not.toBe('closed');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(store.dead).toHaveLength(3);
    refuses = false;
    await vi.advanceTimersByTimeAsync(400_000);
    expect(store.isDone).toBe(true);
    expect(store.dead).toHaveLength(3);
    await relay.stop();
  });

  test('makes no dead letter of a topic that has only a few messages among others', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    for (let i = 0; i < 40; i++) addOf(store, i % 4 === 0 ? 'gone' : 'there', `${i}`);
    let gone = true;
    const publisher = scriptedBatch((text) => {
      if (gone && Number(text) % 4 === 0) throw refusal('permanent', 'no such topic');
    });
    const messenger = new Messenger(store, publisher, { ...options(), publishBatchSize: 20 });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(120_000);
    // The others go on, though with pauses.
    expect(publisher.acknowledged).toHaveLength(30);
    expect(store.dead).toEqual([]);
    gone = false;
    await vi.advanceTimersByTimeAsync(400_000);
    expect(store.isDone).toBe(true);
    expect(store.dead).toEqual([]);
    await relay.stop();
  });

  test('is parked if each message is at fault, and becomes dead letters once others got through', async () => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-p', 60), ...numbered('-', 60));
    const publisher = scriptedBatch((text) => {
      if (text.startsWith('-p')) throw refusal('permanent', 'malformed');
      dead.push(store.dead.length);
    });
    const dead: number[] = [];
    const errorLogger = recordingLogger();
    const relay = started(new Messenger(store, publisher, { ...options(), errorLogger, publishBatchSize: 30 }));
    await vi.advanceTimersByTimeAsync(60_000);
    // What was in flight with them was acknowledged before they were parked, and says nothing of since.
    expect(publisher.acknowledged).toHaveLength(60);
    store.add('-later');
    await vi.advanceTimersByTimeAsync(60_000);
    await relay.stop();
    expect(dead[0]).toBe(0);
    expect(publisher.acknowledged).toHaveLength(61);
    expect(store.isDone).toBe(true);
    expect(store.dead).toHaveLength(60);
  });

  test('does not include a few refusals among many, which become dead letters at once', async () => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 100));
    const publisher = scriptedBatch((text) => {
      if (Number(text.slice(1)) % 3 === 0) throw refusal('permanent', 'malformed');
    });
    const messenger = new Messenger(store, publisher, options());
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(50);
    expect(store.dead).toHaveLength(34);
    expect(messenger.circuit).toEqual({ state: 'closed', failures: 0 });
    await relay.stop();
  });

  test('uses no attempts while it is retried, and at most one when it is parked', async () => {
    vi.useFakeTimers();
    const store = storeOf(...numbered('-', 20));
    const publisher = scriptedBatch(() => Promise.reject(new Error('busy')));
    const relay = started(new Messenger(store, publisher, { ...options(), publishBatchSize: 10 }));
    await vi.advanceTimersByTimeAsync(600_000);
    expect(store.parked.size).toBe(20);
    expect(publisher.sent.filter((text) => text === '-0').length).toBeGreaterThan(5);
    expect(new Set([...store.parked.values()].map(({ attempts }) => attempts))).toEqual(new Set([1]));
    expect(store.dead).toEqual([]);
    await relay.stop();
  });
});

describe('too many waiting messages', () => {
  test('stop new messages but not retries, until fewer messages wait', async () => {
    vi.useFakeTimers();
    const store = storeOf();
    addOf(store, 'slow', ...numbered('s', 300));
    let broken = true;
    const publisher = scriptedBatch((text) => {
      if (broken && text.startsWith('s') && Number(text.slice(1)) % 2 === 0) throw new Error(`busy with ${text}`);
    });
    const errorLogger = recordingLogger();
    const events: MessengerEvent[] = [];
    const messenger = new Messenger(store, publisher, {
      publishBatchSize: 10,
      pipelineDepth: 2,
      maxParked: 50,
      retry: { maxAttempts: Infinity },
      errorLogger,
      onEvent: (event) => void events.push(event),
    });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(messenger.circuit).toMatchObject({ state: 'open', error: { code: 'PARKING_LIMIT' } });
    expect(messenger.circuit.retryAt).toBeUndefined();
    expect(messenger.circuit.error?.message).toMatch(
      /^\d+ messages of topic "slow" wait to be tried again \(maxParked 50\)/,
    );
    expect(store.parked.size).toBeGreaterThanOrEqual(50);
    expect(store.parked.size).toBeLessThanOrEqual(50 + 2 * 10);
    expect(errorLogger.errors.filter((error) => 'code' in error && error.code === 'PARKING_LIMIT')).toHaveLength(1);
    const limits = () =>
      events.filter((event) => 'reason' in event && event.reason === 'limit').map(({ type }) => type);
    expect(limits()).toEqual(['paused']);
    // Nobody knows when fewer messages will wait.
    expect(events.find(({ type }) => type === 'paused')).not.toHaveProperty('retryIn');
    const sent = publisher.sent.length;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(publisher.sent.length).toBeGreaterThan(sent);
    expect(store.cursor).toBeLessThan(300);
    broken = false;
    await vi.advanceTimersByTimeAsync(600_000);
    expect(store.isDone).toBe(true);
    expect(limits()).toEqual(['paused', 'resumed']);
    expect(messenger.circuit).toEqual({ state: 'closed', failures: 0 });
    await relay.stop();
  });

  test('are counted for each topic, against its own limit', async () => {
    vi.useFakeTimers();
    const store = new ListFeedStore();
    addOf(store, 'tight', ...numbered('t', 4));
    addOf(store, 'wide', ...numbered('w', 100));
    const publisher = scriptedBatch((text) => {
      if (text.startsWith('t')) throw new Error(['one', 'two', 'three', 'four'][Number(text[1])]);
    });
    const messenger = new Messenger(store, publisher, {
      publishBatchSize: 4,
      topics: { tight: { maxParked: 4 } },
      errorLogger: recordingLogger(),
    });
    const relay = started(messenger);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(publisher.acknowledged).toHaveLength(100);
    addOf(store, 'tight', 't0', 't1');
    await vi.advanceTimersByTimeAsync(5_000);
    expect(messenger.circuit).toMatchObject({ state: 'open', error: { code: 'PARKING_LIMIT' } });
    expect(store.parked.size).toBe(4);
    await relay.stop();
    expect([...store.parked.values()].map((each) => textOf(each.message)).sort()).toEqual(numbered('t', 4));
  });
});

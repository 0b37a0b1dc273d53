/** The whole life of some messages, as seen through any client, for comparison between databases. */
import { Messenger, newMessage, PublishError, type Message } from '../../../src/index.js';
import { PostgresStore, type PostgresClient, type TransactionHandle } from '../../../src/stores/postgres/index.js';

/** A client of the database, as an application has it. */
export interface Opened {
  readonly client: PostgresClient;
  /** Runs `work` in a transaction that is committed. */
  readonly transaction: <T>(work: (handle: TransactionHandle) => Promise<T>) => Promise<T>;
  readonly close: () => Promise<unknown>;
}

const AT = new Date('2026-01-02T03:04:05.678Z');
const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, n) => n);

interface Options {
  readonly jsonPayload?: boolean;
  /** Characters that the database can keep. @default any */
  readonly text?: string;
  /** The text of the error with which the broker refuses a message. */
  readonly error?: string;
}

/** One destination's relay, with a broker that refuses some messages. */
class Broker {
  /** What the broker has acknowledged. */
  readonly taken: unknown[] = [];
  /** How often the broker still refuses each message. */
  readonly refusals: Map<string, number>;
  readonly #messenger: Messenger;

  constructor(store: PostgresStore, destination: string, refusals: Record<string, number>, error: string) {
    this.refusals = new Map(Object.entries(refusals));
    const publish = (message: Message) => {
      const left = this.refusals.get(message.id) ?? 0;
      this.refusals.set(message.id, left - 1);
      if (left > 0) return Promise.reject(new PublishError(error, { kind: 'retryable' }));
      this.taken.push(shown(message));
      return Promise.resolve();
    };
    this.#messenger = new Messenger(
      store,
      { publish },
      {
        destination,
        publishBatchSize: 3,
        concurrency: 1,
        retry: { minDelay: 1, maxDelay: 1, maxAttempts: 2 },
        errorLogger: { error: () => undefined },
      },
    );
  }

  /** Publishes until this destination has nothing left to publish. Gives up after many tries. */
  async drain(store: PostgresStore, destination: string, waiting: number): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      await this.#messenger.publish().catch((error: unknown) => {
        if (!(error instanceof PublishError)) throw error;
      });
      const state = (await store.admin.destinations()).find(({ name }) => name === destination);
      if (state?.pending === 0 && state.parked === waiting) return;
    }
    throw new Error(`${destination} does not come to an end`);
  }
}

/** Stores, publishes, fails, retries, gives up, requeues, cleans and receives. Resolves to everything that was seen. */
export async function life(
  { client, transaction }: Opened,
  { jsonPayload = false, text = 'ü"\\\'€ 😀', error = `refused: ${text}` }: Options = {},
): Promise<Record<string, unknown>> {
  const store = new PostgresStore(client, { jsonPayload, partitions: 3, listen: false });
  const payload = (bytes: Uint8Array) => (jsonPayload ? ` {"n":1.50,\t"text":${JSON.stringify(text)}}` : bytes);
  const add = (...messages: Parameters<typeof newMessage>[]) =>
    transaction((handle) => store.add(handle, messages.map((each) => newMessage(...each)) as Message[]));

  await store.migrate();
  await store.migrate();
  await store.declareDestinations(['own']);
  await add(
    [payload(EVERY_BYTE), { id: 'bytes', key: 'k', topic: 't', metadata: { a: text, 'b"': '' }, at: AT }],
    [payload(Buffer.from('\\x00')), { id: 'looks-escaped', key: `key ${text}`, topic: 'NULL', at: AT }],
    [payload(Buffer.from('\\\\000')), { id: 'fails', key: 'f', topic: text, at: new Date(0) }],
    [payload(EVERY_BYTE), { id: 'behind', key: 'f', at: new Date('9999-12-31T23:59:59.999Z') }],
    [payload(EVERY_BYTE), { id: 'dies', key: 'd', at: AT, deliverAt: new Date('2020-02-29T12:00:00.001Z') }],
  );
  await add([
    payload(EVERY_BYTE),
    { id: 'far', key: 'later', at: AT, deliverAt: new Date('2999-01-01T00:00:00.001Z'), holdKey: true },
  ]);
  await add([payload(EVERY_BYTE), { id: 'addressed', at: AT, destination: 'own' }]);
  const stored = await transaction(async (handle) => {
    await store.add(handle, newMessage(payload(EVERY_BYTE), { id: 'last', at: AT }));
    return (await store.stored(handle)).map(shown);
  });
  await store.admin.addDestination('copy', { from: 'beginning', topics: ['NULL', text] });
  await store.admin.updateDestination('copy', { forgetAfter: 90_000.5 });
  await store.admin.addDestination('since', { from: new Date(0) });

  const broker = new Broker(store, 'default', { fails: 1, dies: 2 }, error);
  await broker.drain(store, 'default', 1);
  const dead = (await store.admin.deadLetters()).map(({ message, state, error: text, reason, attempts, ...times }) => ({
    ...{ state, text, reason, attempts },
    message: shown(message),
    recent: [times.storedAt, times.firstFailedAt, times.lastFailedAt, times.givenUpAt].every(isRecent),
  }));
  const requeued = [
    await store.admin.requeue({ until: new Date(0) }),
    await store.admin.requeue({ ids: ['dies'], error: 'refused', since: new Date(Date.now() - 600_000) }),
  ];
  await broker.drain(store, 'default', 1);
  const others = await Promise.all(
    ['copy', 'own', 'since'].map(async (name) => {
      const other = new Broker(store, name, { last: 9 }, error);
      await other.drain(store, name, name === 'since' ? 1 : 0);
      return other.taken;
    }),
  );
  const discarded = await store.admin.discard({ destination: 'since', all: true });
  const states = (await store.admin.destinations()).map(
    ({ createdAt, activeAt, oldestPending, stalledSince, ...state }) => ({
      ...state,
      times: [createdAt === null || isRecent(createdAt), isRecent(activeAt), oldestPending, stalledSince],
    }),
  );
  const cleaned = await store.deletePublishedByExpiration(0);
  const received: unknown[] = [];
  for (let n = 0; n < 2; n++) received.push(await transaction((handle) => store.receive(handle, text, `id ${text}`)));
  received.push(await store.deleteReceived(text, 0));
  const removed = [
    await store.admin.removeDestination('default', { discard: true }),
    await store.admin.removeDestination('since', { discard: true }),
  ];
  await store.admin.repartition(5);
  const again = new PostgresStore(client, { jsonPayload, partitions: 5, listen: false });
  const rebased = await again.admin.rebase();
  await transaction((handle) =>
    again.add(handle, newMessage(payload(EVERY_BYTE), { id: 'after', topic: 'NULL', at: AT })),
  );
  const after = new Broker(again, 'copy', {}, error);
  await after.drain(again, 'copy', 0);
  return {
    ...{ stored, published: broker.taken, dead, requeued, others, discarded, states, cleaned, received, removed },
    ...{ rebased, after: after.taken },
  };
}

function shown({ id, topic, key, metadata, payload, at, deliverAt, holdKey }: Message): unknown {
  return {
    ...{ id, topic, key, metadata, deliverAt, holdKey, at: at.toISOString() },
    payload: Buffer.from(payload).toString('hex'),
  };
}

function isRecent(time: Date | null): boolean {
  return time !== null && Math.abs(Date.now() - time.getTime()) < 600_000;
}

/**
 * A relay in a process of its own, to be killed, paused and cut off: `node --import tsx relay-process.ts CONFIG`.
 *
 * It publishes over a socket to the broker of the test, and tells what its error logger is told as lines
 * of JSON on standard output. Nothing at all is meant to come on standard error. SIGTERM ends it with 0,
 * a `FatalError` with 3.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import {
  FatalError,
  MessengerError,
  Messenger,
  PublishError,
  type FailureKind,
  type Message,
  type MessengerOptions,
  type Publisher,
} from '../../src/index.js';
import type { BatchPublisher, PublishResult } from '../../src/adapter.js';
import { PostgresStore, type PostgresStoreOptions } from '../../src/stores/postgres/index.js';

export interface RelayConfig {
  readonly name: string;
  readonly databaseUrl: string;
  readonly brokerPort: number;
  /**
   * How it publishes: in batches (`ordered`: of which it keeps the order of keys), or one by one. Two are wrong on purpose: `early` tells that the broker
   * has acknowledged before it was asked, and `reversed` says that it keeps the order of keys and does not.
   */
  readonly form: 'batch' | 'ordered' | 'single' | 'early' | 'reversed';
  /** The application in this process takes all connections of the pool, again and again, for so many milliseconds. */
  readonly hogs?: number;
  /** Its errors go to the console, as they do by default, and not to standard output. */
  readonly console?: boolean;
  readonly store: PostgresStoreOptions;
  readonly messenger: Omit<MessengerOptions, 'errorLogger'>;
}

/** What it tells on standard output. */
export interface RelayEvent {
  /** `paused` is the relay's own event: each time that it finds the broker failing. */
  readonly event: 'error' | 'fatal' | 'paused';
  readonly code: string | undefined;
  readonly kind: string | undefined;
  readonly message: string;
}

/** What the broker is sent, as a line. */
export interface BrokerRequest {
  readonly number: number;
  readonly relay: string;
  readonly messages: readonly { readonly id: string; readonly key?: string | undefined }[];
}

/** What it answers: for each message whether it was acknowledged (`null`), or of which kind its refusal is. */
export interface BrokerAnswer {
  readonly number: number;
  readonly results: readonly (FailureKind | null)[];
}

/** How many connections its pool has. */
const POOL = 5;

interface Waiting {
  readonly resolve: (answer: BrokerAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** One connection to the broker, made anew when it is gone. */
class BrokerClient {
  readonly #config: RelayConfig;
  #number = 0;
  #socket: Socket | undefined;
  readonly #waiting = new Map<number, Waiting>();

  constructor(config: RelayConfig) {
    this.#config = config;
  }

  async send(messages: readonly Message[]): Promise<PublishResult[]> {
    const number = (this.#number += 1);
    const socket = (this.#socket ??= this.#connect());
    const answer = await new Promise<BrokerAnswer>((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      const request: BrokerRequest = {
        number,
        relay: this.#config.name,
        messages: messages.map(({ id, key }) => ({ id, key })),
      };
      socket.write(`${JSON.stringify(request)}\n`);
    });
    return answer.results.map((kind) =>
      kind === null
        ? { acknowledged: true }
        : { acknowledged: false, error: new PublishError(`the broker refused it: ${kind}`, { kind }) },
    );
  }

  close(): void {
    this.#socket?.destroy();
  }

  #connect(): Socket {
    const socket = connect({ port: this.#config.brokerPort, host: '127.0.0.1' });
    let failure: Error | undefined;
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      this.#socket = undefined;
      const error = new PublishError('the connection to the broker is gone', { kind: 'connection', cause: failure });
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
    // readline passes the errors of its input on.
    createInterface({ input: socket })
      .on('error', () => {})
      .on('line', (line) => {
        const answer = JSON.parse(line) as BrokerAnswer;
        this.#waiting.get(answer.number)?.resolve(answer);
        this.#waiting.delete(answer.number);
      });
    return socket;
  }
}

function publisherOf(form: RelayConfig['form'], broker: BrokerClient): Publisher | BatchPublisher {
  const publish = async (message: Message): Promise<void> => {
    const [result] = await broker.send([message]);
    if (result?.acknowledged !== true) throw result?.error ?? new Error('no answer');
  };
  if (form === 'single') return { publish };
  if (form === 'batch' || form === 'ordered')
    return { publish, batchKeepsKeyOrder: form === 'ordered', publishBatch: (messages) => broker.send(messages) };
  if (form === 'early') {
    return {
      publish,
      publishBatch: async (messages) => {
        // As a client that collects messages does: what waits in its process dies with it.
        setTimeout(() => {
          broker.send(messages).catch(() => undefined);
        }, 60_000);
        return messages.map(() => ({ acknowledged: true }));
      },
    };
  }
  return {
    publish,
    batchKeepsKeyOrder: true,
    publishBatch: async (messages) => (await broker.send(messages.toReversed())).toReversed(),
  };
}

function tell(event: RelayEvent['event'], error: Error): void {
  const { code, kind } = error as { code?: string; kind?: string };
  const line: RelayEvent = { event, code, kind, message: error.message };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Takes every connection of the pool for a time, and leaves it alone for as long, until it is aborted. */
async function hog(pool: pg.Pool, ms: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const clients = await Promise.all(Array.from({ length: POOL }, () => pool.connect()));
    await sleep(ms);
    for (const client of clients) client.release();
    await sleep(ms);
  }
}

async function main(config: RelayConfig): Promise<void> {
  const broker = new BrokerClient(config);
  const pool = new pg.Pool({
    connectionString: config.databaseUrl,
    application_name: config.name,
    max: POOL,
    // One that is cut while it is being made would be waited for by the end of the pool, for ever.
    connectionTimeoutMillis: 5_000,
  });
  const stop = new AbortController();
  process.once('SIGTERM', () => {
    stop.abort();
  });
  const messenger = new Messenger(new PostgresStore(pool, config.store), publisherOf(config.form, broker), {
    ...config.messenger,
    onEvent: (event) => {
      if (event.type === 'paused') tell('paused', event.error);
    },
    ...(config.console !== true && {
      errorLogger: {
        error: (error) => {
          tell('error', error);
        },
      },
    }),
  });
  const hogging = config.hogs === undefined ? undefined : hog(pool, config.hogs, stop.signal);
  try {
    await messenger.start({ signal: stop.signal });
  } catch (error) {
    if (!(error instanceof FatalError && error instanceof MessengerError)) throw error;
    tell('fatal', error);
    process.exitCode = 3;
  } finally {
    broker.close();
    await hogging;
    await pool.end();
  }
}

await main(JSON.parse(process.argv[2]!) as RelayConfig);

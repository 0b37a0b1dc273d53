/**
 * A store of your own: three methods, here over a file with one JSON object per line.
 *
 *     npx tsx examples/plain-store/main.ts
 */
import { appendFile, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Messenger, newMessage, PublishError, type Message, type Publisher, type Store } from 'messenger-outbox';

interface Line extends Omit<Message, 'payload' | 'at'> {
  readonly payload: string;
  readonly at: number;
}

const textOf = (lines: readonly Line[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join('');

class FileStore implements Store {
  readonly #file: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(file: string) {
    this.#file = file;
  }

  /** An append is this store's transaction: all of the messages or none. */
  async add(...messages: readonly Message[]): Promise<void> {
    const lines = messages.map(({ id, metadata, payload, published, at, topic, key }): Line => {
      return { id, metadata, payload: Buffer.from(payload).toString('base64'), published, at: Number(at), topic, key };
    });
    await this.#alone(() => appendFile(this.#file, textOf(lines)));
  }

  async messages(batch: number): Promise<Message[]> {
    const waiting = (await this.#read()).filter(({ published }) => !published).slice(0, batch);
    return waiting.map((line) => ({ ...line, payload: Buffer.from(line.payload, 'base64'), at: new Date(line.at) }));
  }

  async published(...messages: readonly Message[]): Promise<void> {
    const ids = new Set(messages.map(({ id }) => id));
    await this.#rewrite((lines) => lines.map((line) => (ids.has(line.id) ? { ...line, published: true } : line)));
  }

  async deletePublishedByExpiration(expiration: number): Promise<void> {
    const expired = Date.now() - expiration;
    await this.#rewrite((lines) => lines.filter(({ published, at }) => !published || at > expired));
  }

  async #read(): Promise<Line[]> {
    const text = await readFile(this.#file, 'utf8');
    return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Line]));
  }

  /** All or nothing: a rename replaces the file at once. */
  async #rewrite(change: (lines: readonly Line[]) => readonly Line[]): Promise<void> {
    await this.#alone(async () => {
      await writeFile(`${this.#file}.new`, textOf(change(await this.#read())));
      await rename(`${this.#file}.new`, this.#file);
    });
  }

  /** The relay changes the file while the application appends to it: one after the other. */
  async #alone(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    await turn;
  }
}

const folder = await mkdtemp(join(tmpdir(), 'plain-store-'));
const store = new FileStore(join(folder, 'outbox.jsonl'));
const order = (number: number, event: string) =>
  newMessage(`order ${number} ${event}`, { topic: 'orders', key: `order-${number}` });
await store.add(order(1, 'placed'), order(1, 'paid'), order(2, 'placed'), order(1, 'sent'), order(2, 'cancelled'));

// A broker that is busy at first, and one message that it never takes.
let busy = 2;
const publisher: Publisher = {
  async publish({ payload }) {
    const text = new TextDecoder().decode(payload);
    if (text === 'order 1 placed' && busy-- > 0) throw new Error('busy');
    if (text === 'order 2 placed') throw new PublishError('refused', { kind: 'permanent' });
    console.log(`published: ${text}`);
  },
};

const stop = new AbortController();
const messenger = new Messenger(store, publisher, {
  retry: { minDelay: 10 },
  interval: 10,
  cleanUp: 0,
  errorLogger: {
    error(error) {
      console.log(`error: ${error.message.replace(/[\da-f-]{36}/, '<id>')}`);
    },
  },
});
const running = messenger.start({ signal: stop.signal });
while ((await store.messages(10)).length > 1) await new Promise((resolve) => setTimeout(resolve, 10));
stop.abort();
await running;

const left = (await store.messages(10)).map(({ payload }) => new TextDecoder().decode(payload));
console.log(`left: ${left.join(', ')}`);
await rm(folder, { recursive: true });

import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FailureKind } from '../../src/index.js';
import { freePort } from '../support/embedded-postgres.js';
import type { BrokerAnswer, BrokerRequest } from './relay-process.js';

/** One acknowledgement, as the broker recorded it before it answered. */
export interface Acknowledgement {
  readonly id: string;
  readonly relay: string;
  readonly at: number;
  /** Whether this message had not been acknowledged before. */
  readonly isFirst: boolean;
}

/** A broker that outlives the relays, does as the test says, and remembers everything it acknowledged. */
export class RecordingBroker {
  readonly port: number;
  readonly acknowledgements: Acknowledgement[] = [];
  /** Every request that has come in: from whom, when, and how many messages it held. */
  readonly requests: { readonly relay: string; readonly at: number; readonly size: number }[] = [];
  /** Milliseconds until a request is recorded. */
  latency: () => number = () => 0;
  /** Milliseconds between the recording of a request and its answer. */
  delay: () => number = () => 0;
  /** Whether it takes a message: `null`, or the kind of its refusal. */
  verdict: (id: string, key: string | undefined) => FailureKind | null = () => null;
  readonly #firsts = new Map<string, Acknowledgement>();
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #gate: Promise<void> = Promise.resolve();
  #openGate: (() => void) | undefined;

  private constructor(port: number) {
    this.port = port;
  }

  static async start(): Promise<RecordingBroker> {
    const broker = new RecordingBroker(await freePort());
    await broker.listen();
    return broker;
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      createInterface({ input: socket })
        .on('error', () => {})
        .on('line', (line) => {
          void this.#take(socket, JSON.parse(line) as BrokerRequest);
        });
    });
    server.listen(this.port, '127.0.0.1');
    await once(server, 'listening');
    this.#server = server;
  }

  /** Down: connections are cut, and new ones refused. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Every request from now on waits, unrecorded and unanswered, until `open`. */
  hold(): void {
    this.#gate = new Promise((resolve) => (this.#openGate = resolve));
  }

  open(): void {
    this.#openGate?.();
    this.#gate = Promise.resolve();
  }

  /** How many messages were acknowledged at least once. */
  get count(): number {
    return this.#firsts.size;
  }

  has(id: string): boolean {
    return this.#firsts.has(id);
  }

  /** Ids in the order of their first acknowledgements. */
  firsts(): string[] {
    return [...this.#firsts.keys()];
  }

  first(id: string): Acknowledgement {
    return this.#firsts.get(id)!;
  }

  /** Acknowledgements of what was acknowledged before, by one relay or by all. */
  duplicates(relay?: string): Acknowledgement[] {
    return this.acknowledgements.filter((each) => !each.isFirst && (relay === undefined || each.relay === relay));
  }

  /** How many messages a relay was the first to publish. */
  firstsOf(relay: string): number {
    return this.acknowledgements.filter((each) => each.isFirst && each.relay === relay).length;
  }

  async #take(socket: Socket, { number, relay, messages }: BrokerRequest): Promise<void> {
    this.requests.push({ relay, at: performance.now(), size: messages.length });
    await this.#gate;
    const latency = this.latency();
    if (latency > 0) await sleep(latency);
    // A broker that is down records nothing; one whose client is dead does.
    if (!this.#server) return;
    const results = messages.map(({ id, key }) => {
      const refusal = this.verdict(id, key);
      if (refusal === null) this.#record(id, relay);
      return refusal;
    });
    const delay = this.delay();
    if (delay > 0) await sleep(delay);
    const answer: BrokerAnswer = { number, results };
    if (!socket.destroyed) socket.write(`${JSON.stringify(answer)}\n`);
  }

  #record(id: string, relay: string): void {
    const acknowledgement = { id, relay, at: performance.now(), isFirst: !this.#firsts.has(id) };
    this.acknowledgements.push(acknowledgement);
    if (acknowledgement.isFirst) this.#firsts.set(id, acknowledgement);
  }
}

import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** The end of what a client says in a transaction that it commits, and of what it is answered: ready for the next one. */
const COMMIT = 'COMMIT\0';
const READY = Buffer.from('Z\0\0\0\x05I', 'latin1');

/** What is between a relay and its database: a network that can stop to carry anything, and tell nobody. */
export class Wire {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  readonly #cut = new Set<readonly [Socket, Socket]>();
  #awaited: { readonly said: RegExp; readonly held: (release: () => void) => void } | undefined;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Carries to the server of this URL. */
  static async to(url: string): Promise<Wire> {
    const { port, hostname } = new URL(url);
    const server = createServer();
    const wire = new Wire(server);
    server.on('connection', (near) => {
      const far = connect({ host: hostname, port: Number(port) });
      const pair = [near, far] as const;
      wire.#pairs.add(pair);
      for (const socket of pair) {
        socket.on('error', () => {});
        socket.on('close', () => {
          for (const each of pair) each.destroy();
          wire.#pairs.delete(pair);
        });
      }
      near.pipe(far);
      far.pipe(near);
      let transaction = '';
      near.on('data', (data: Buffer) => {
        transaction += data.toString('latin1');
        if (!transaction.endsWith(COMMIT)) return;
        wire.#committing(transaction, near, far);
        transaction = '';
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return wire;
  }

  /** The same URL, through this wire. */
  through(url: string): string {
    const wired = new URL(url);
    wired.hostname = '127.0.0.1';
    wired.port = String((this.#server.address() as AddressInfo).port);
    return wired.href;
  }

  /**
   * The connections that there are carry nothing any more, and stay open on both sides; new ones are as
   * good as ever. @returns how many there were.
   */
  cut(): number {
    for (const pair of this.#pairs) {
      const [near, far] = pair;
      this.#cut.add(pair);
      near.unpipe(far).pause();
      far.unpipe(near).pause();
    }
    return this.#pairs.size;
  }

  /**
   * Holds back the answer to the COMMIT of the next transaction in which a client says this. Resolves when the
   * server has committed it, which the client is not told before it is released.
   */
  holdCommit(said: RegExp): Promise<() => void> {
    return new Promise((held) => (this.#awaited = { said, held }));
  }

  /** A client, which says nothing more before it is answered, has told its server to commit this. */
  #committing(transaction: string, near: Socket, far: Socket): void {
    const awaited = this.#awaited;
    if (awaited?.said.test(transaction) !== true) return;
    this.#awaited = undefined;
    let answer = Buffer.alloc(0);
    const onData = (data: Buffer) => {
      answer = Buffer.concat([answer, data]);
      if (answer.subarray(-READY.length).equals(READY)) awaited.held(release);
    };
    const release = () => {
      far.off('data', onData);
      if (!near.destroyed) near.write(answer);
      far.pipe(near);
    };
    far.unpipe(near);
    far.on('data', onData).resume();
  }

  /** Both sides hear at last that what was cut is gone: until then a client can not end a connection in good order. */
  reset(): void {
    for (const pair of this.#cut) for (const socket of pair) socket.destroy();
    this.#cut.clear();
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

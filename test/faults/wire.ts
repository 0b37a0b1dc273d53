import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** The end of what a client says in a transaction that it commits, and of what it is answered: ready for the next one. */
const COMMIT = 'COMMIT\0';
const READY = Buffer.from('Z\0\0\0\x05I', 'latin1');

/** A COMMIT to lose, or one whose answer is held back, of a transaction in which this is said. */
type Awaited = { readonly said: RegExp } & (
  { readonly held: (release: () => void) => void } | { readonly lost: () => void }
);

/** What is between a relay and its database: a network that can stop to carry anything, and tell nobody. */
export class Wire {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  readonly #cut = new Set<readonly [Socket, Socket]>();
  #awaited: Awaited | undefined;

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
      far.pipe(near);
      let transaction = '';
      near.on('data', (data: Buffer) => {
        transaction += data.toString('latin1');
        if (transaction.endsWith(COMMIT)) {
          if (wire.#isWithheld(transaction, near, far)) return;
          transaction = '';
        }
        far.write(data);
      });
      near.on('end', () => far.end());
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
      near.pause();
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

  /**
   * Loses the COMMIT of the next transaction in which a client says this, and carries nothing more of that client's.
   * Resolves when the client has sent it: the server waits for it until the connection is closed.
   */
  loseCommit(said: RegExp): Promise<void> {
    return new Promise((lost) => (this.#awaited = { said, lost }));
  }

  /**
   * A client, which says nothing more before it is answered, tells its server to commit this.
   *
   * @returns whether the server does not get to know
   */
  #isWithheld(transaction: string, near: Socket, far: Socket): boolean {
    const awaited = this.#awaited;
    if (awaited?.said.test(transaction) !== true) return false;
    this.#awaited = undefined;
    if ('lost' in awaited) {
      near.pause();
      awaited.lost();
      return true;
    }
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
    return false;
  }

  /** Both sides hear at last that what was cut is gone: until then a client cannot end a connection in good order. */
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

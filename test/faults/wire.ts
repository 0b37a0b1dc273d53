import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** What is between a relay and its database: a network that can stop to carry anything, and tell nobody. */
export class Wire {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();

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
    for (const [near, far] of this.#pairs) {
      near.unpipe(far).pause();
      far.unpipe(near).pause();
    }
    return this.#pairs.size;
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

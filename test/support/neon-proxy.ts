import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import pg from 'pg';
import { createWebSocketStream, WebSocketServer } from 'ws';

/** What Neon runs before its servers, as far as its driver speaks with it, before a PostgreSQL of one's own. */
export interface NeonProxy {
  /** For `neonConfig.wsProxy`: a WebSocket to there is a connection to the server. */
  readonly webSocket: string;
  /** For `neonConfig.fetchEndpoint`: runs a query, or several in a transaction. */
  readonly http: string;
  close(): Promise<void>;
}

/** A query as the driver posts it. */
interface Query {
  readonly query: string;
  readonly params: unknown[];
}

/** What the driver reads of an error: a name in `pg` for each. */
const ERROR_FIELDS = [
  'message',
  'code',
  'severity',
  'detail',
  'hint',
  'schema',
  'table',
  'column',
  'constraint',
] as const;

/** The headers of a transaction, and what they ask for. */
const TRANSACTION = {
  'neon-batch-isolation-level': (level: string) => `ISOLATION LEVEL ${level.replace(/(?<=[a-z])(?=[A-Z])/g, ' ')}`,
  'neon-batch-read-only': (on: string) => (on === 'true' ? 'READ ONLY' : 'READ WRITE'),
  'neon-batch-deferrable': (on: string) => (on === 'true' ? 'DEFERRABLE' : 'NOT DEFERRABLE'),
};

/** Starts it on a free port of the loopback interface, before the server of a connection string. */
export async function startNeonProxy(url: string): Promise<NeonProxy> {
  const { hostname, port } = new URL(url);
  const server = createServer((request, response) => {
    void answer(request).then(({ status, body }) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  });
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket) => {
    const stream = createWebSocketStream(socket);
    const upstream = connect(Number(port), hostname);
    const end = () => {
      upstream.destroy();
      socket.terminate();
    };
    for (const each of [stream, upstream]) each.on('error', end).on('close', end);
    stream.pipe(upstream).pipe(stream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  return {
    webSocket: address,
    http: `http://${address}/sql`,
    async close() {
      for (const socket of sockets.clients) socket.terminate();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function answer(request: IncomingMessage): Promise<{ status: number; body: unknown }> {
  // Each row as the text that the server sent: the driver parses it.
  const types = { getTypeParser: () => (text: unknown) => text };
  const client = new pg.Client({ connectionString: String(request.headers['neon-connection-string']), types });
  const run = async ({ query, params }: Query) => {
    const { fields, rows, command, rowCount } = await client.query({ text: query, values: params, rowMode: 'array' });
    return { fields, rows, command, rowCount };
  };
  try {
    const asked = (await json(request)) as Query | { readonly queries: Query[] };
    await client.connect();
    if (!('queries' in asked)) return { status: 200, body: await run(asked) };
    await client.query(`BEGIN ${modesOf(request).join(', ')}`);
    const results = [];
    for (const query of asked.queries) results.push(await run(query));
    await client.query('COMMIT');
    return { status: 200, body: { results } };
  } catch (error) {
    // The connection's end rolls back what was begun.
    const fields = error as Record<(typeof ERROR_FIELDS)[number], unknown>;
    return { status: 400, body: Object.fromEntries(ERROR_FIELDS.map((name) => [name, fields[name]])) };
  } finally {
    await client.end();
  }
}

function modesOf({ headers }: IncomingMessage): string[] {
  return Object.entries(TRANSACTION).flatMap(([name, mode]) => {
    const asked = headers[name];
    return typeof asked === 'string' ? [mode(asked)] : [];
  });
}

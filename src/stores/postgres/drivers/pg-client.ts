import { hasMethods } from '../../../core/util/options.js';
import { hearStatus, type PgTelling } from './pg-status.js';

/** A query as `pg` takes it, with everything set that this store relies on. */
export interface PgQuery {
  text: string;
  values?: unknown[];
  name?: string;
  rowMode?: 'array';
  types?: { getTypeParser(oid: number, format?: string): (value: string) => unknown };
}

/** The slice of `pg`'s Client and PoolClient that is used. */
export interface PgClient extends PgTelling {
  query(query: PgQuery & { rowMode: 'array' }): Promise<{ rows: unknown[][] }>;
  query(text: string): Promise<unknown>;
  escapeIdentifier(text: string): string;
  escapeLiteral?(text: string): string;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** The slice of `pg`'s PoolClient that is used. */
export interface PgPoolClient extends PgClient {
  release(destroy?: boolean): void;
}

/** The slice of `pg`'s Pool that is used. */
export interface PgPool {
  connect(): Promise<PgPoolClient>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'connect', listener: (client: PgClient) => void): unknown;
  readonly totalCount: number;
  readonly idleCount: number;
}

export function isPool(client: unknown): client is PgPool {
  return hasMethods(client, 'connect', 'query') && typeof (client as PgPool).totalCount === 'number';
}

export function isClient(client: unknown): client is PgClient {
  return hasMethods(client, 'connect', 'query', 'escapeIdentifier') && !isPool(client);
}

function ignore(): void {
  // A connection that breaks also rejects the query in flight, or the next: nothing is lost here, and
  // without a listener the event would end the process.
}

/** What has our listeners: once is enough, however many stores a client serves. */
const listening = new WeakSet<PgPool | PgClient>();

/**
 * A pool's clients are listened to before it hands them out: a server that ends a session at once says
 * so in the packet that says it is ready, which is before the promise of `connect` is heard.
 */
export function listen(client: PgPool | PgClient): void {
  if (listening.has(client)) return;
  listening.add(client);
  client.on('error', ignore);
  if (!isPool(client)) return;
  client.on('connect', (fresh) => {
    listen(fresh);
    hearStatus(fresh, 'I');
  });
}

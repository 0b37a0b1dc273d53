import { hasMethods } from '../../../core/util/options.js';
import { hearStatus, type PgTelling } from './pg-status.js';

/** A query for `pg`. It sets every option that the store relies on. */
export interface PgQuery {
  text: string;
  values?: unknown[];
  name?: string;
  rowMode?: 'array';
  types?: { getTypeParser(oid: number, format?: string): (value: string) => unknown };
}

/** The part of `pg`'s Client and PoolClient that the store uses. */
export interface PgClient extends PgTelling {
  query(query: PgQuery & { rowMode: 'array' }): Promise<{ rows: unknown[][] }>;
  query(text: string): Promise<unknown>;
  escapeIdentifier(text: string): string;
  escapeLiteral?(text: string): string;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** The part of `pg`'s PoolClient that the store uses. */
export interface PgPoolClient extends PgClient {
  release(destroy?: boolean): void;
}

/** The part of `pg`'s Pool that the store uses. */
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
  // A broken connection also rejects the query in flight or the next query, so no error is lost here. Without a
  // listener, the `error` event would end the process.
}

/**
 * The pools and clients that already have our listeners. One set of listeners is enough, even if many stores use a
 * client.
 */
const listening = new WeakSet<PgPool | PgClient>();

/**
 * Adds our listeners to a client, or to a pool and its clients before the pool hands them out. A server that ends a
 * session at once can send the error in the same packet as its ready message. `pg` handles that packet before the
 * promise from `connect` settles.
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

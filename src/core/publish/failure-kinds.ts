import type { FailureKind } from '../errors.js';

/** Maps the `code` or the `name` of an error to a kind of failure. To extend a table, spread it into a new one. */
export type FailureTable = Readonly<Record<string, FailureKind>>;

/**
 * Failures that mean that no server answers, or that the server's certificate is not trusted. The codes come from
 * Node's `net`, `dns` and `tls`, and from undici's `fetch`. The table does not contain the codes for a connection that
 * breaks midway (`ECONNRESET`, `EPIPE`), because some brokers break the connection to reject a single message.
 */
export const NETWORK_FAILURES: FailureTable = {
  ECONNREFUSED: 'connection',
  ENOTFOUND: 'connection',
  EAI_AGAIN: 'connection',
  ETIMEDOUT: 'connection',
  EHOSTUNREACH: 'connection',
  ENETUNREACH: 'connection',
  ENETDOWN: 'connection',
  UND_ERR_CONNECT_TIMEOUT: 'connection',
  CERT_HAS_EXPIRED: 'connection',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'connection',
  SELF_SIGNED_CERT_IN_CHAIN: 'connection',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'connection',
  ERR_TLS_CERT_ALTNAME_INVALID: 'connection',
};

/** How many nested causes are examined. The limit also ends a cycle of causes. */
const MAX_CAUSES = 10;

/**
 * Looks up an error in a table, first by its `code`, then by its `name`, then by the `code` and `name` of its `cause`,
 * and so on. Returns `undefined` if the table contains none of them.
 */
export function classify(error: unknown, table: FailureTable): FailureKind | undefined {
  let each = error;
  for (let depth = 0; depth < MAX_CAUSES && typeof each === 'object' && each !== null; depth++) {
    const { code, name, cause } = each as { code?: unknown; name?: unknown; cause?: unknown };
    const kind = lookUp(code, table) ?? lookUp(name, table);
    if (kind !== undefined) return kind;
    each = cause;
  }
  return undefined;
}

/** Returns the kind for one code or name, or `undefined` if the table does not contain it. */
export function lookUp(name: unknown, table: FailureTable): FailureKind | undefined {
  // Use only own properties. Otherwise, an error named `constructor` would match an inherited property.
  return typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined;
}

/**
 * Returns the kind of a publisher's error: the error's own `kind`, or else its kind in `NETWORK_FAILURES`, or else
 * `retryable`, because another attempt does no harm. It checks the `kind` property instead of the class, so that it
 * also recognises errors from an adapter that uses another copy of this package.
 */
export function failureKind(error: unknown): FailureKind {
  const kind = (error as { kind?: unknown } | null | undefined)?.kind;
  return isFailureKind(kind) ? kind : (classify(error, NETWORK_FAILURES) ?? 'retryable');
}

export function isFailureKind(kind: unknown): kind is FailureKind {
  return kind === 'retryable' || kind === 'permanent' || kind === 'connection';
}

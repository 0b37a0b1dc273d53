import type { FailureKind } from '../errors.js';

/** The kinds of failures, by the `code` or the `name` of the error. Extend a table by spreading it. */
export type FailureTable = Readonly<Record<string, FailureKind>>;

/**
 * Failures that mean that nobody answers, or nobody who can be trusted: the codes of Node's `net`, `dns` and `tls`, and
 * of undici's `fetch`. The codes of a connection that breaks midway (`ECONNRESET`, `EPIPE`) are not in this table,
 * because some brokers break the connection to answer a single message that they cannot accept.
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

/** How many causes of causes are examined. The limit also ends a cycle of causes. */
const MAX_CAUSES = 10;

/**
 * The kind that a table gives to an error: by its `code`, or else its `name`, or else the `code` and `name` of its
 * `cause`, and so on. `undefined` if the table contains none of them.
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

/** The kind of one code or name; `undefined` if the table does not contain it. */
export function lookUp(name: unknown, table: FailureTable): FailureKind | undefined {
  // Only own properties count, so that the table does not answer for an error named `constructor`.
  return typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined;
}

/**
 * The kind of a publisher's error: the error's own `kind`, or else its kind in `NETWORK_FAILURES`, or else `retryable`,
 * because another attempt loses nothing. The check is structural, so that it understands an adapter with another copy
 * of this package, too.
 */
export function failureKind(error: unknown): FailureKind {
  const kind = (error as { kind?: unknown } | null | undefined)?.kind;
  return isFailureKind(kind) ? kind : (classify(error, NETWORK_FAILURES) ?? 'retryable');
}

export function isFailureKind(kind: unknown): kind is FailureKind {
  return kind === 'retryable' || kind === 'permanent' || kind === 'connection';
}

import type { FailureKind } from '../errors.js';

/** What failures mean, by the `code` or the `name` of the error: extend it by spreading. */
export type FailureTable = Readonly<Record<string, FailureKind>>;

/**
 * Nobody answers, or nobody who can be trusted: the codes of Node's `net`, `dns` and `tls` and of undici's
 * `fetch`. A connection that breaks midway (`ECONNRESET`, `EPIPE`) is not here: some brokers answer so to
 * a single message that they cannot take.
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

/** How many causes of causes are looked at: a cycle of them ends. */
const MAX_CAUSES = 10;

/**
 * The kind that a table gives an error: by its `code`, else its `name`, else the same of its `cause`, and
 * so on; `undefined` when none of them is in the table.
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

/** The kind of one code or name, if it is in the table. */
export function lookUp(name: unknown, table: FailureTable): FailureKind | undefined {
  // Own properties only: an error named `constructor` is not in the table.
  return typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined;
}

/**
 * The kind of a publisher's error: what the error says of itself (`error.kind`), else by
 * `NETWORK_FAILURES`, else `retryable`, since trying again loses nothing. Structural, so that an
 * adapter of another copy of this package is understood too.
 */
export function failureKind(error: unknown): FailureKind {
  const kind = (error as { kind?: unknown } | null | undefined)?.kind;
  return isFailureKind(kind) ? kind : (classify(error, NETWORK_FAILURES) ?? 'retryable');
}

export function isFailureKind(kind: unknown): kind is FailureKind {
  return kind === 'retryable' || kind === 'permanent' || kind === 'connection';
}

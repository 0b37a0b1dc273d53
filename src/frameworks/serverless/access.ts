import { MessengerError } from '../../core/errors.js';
import type { ErrorLogger } from '../../core/contracts/logger.js';

/** The part of a `Request` that the handler uses. */
export interface DrainRequest {
  readonly headers: { get(name: string): string | null };
}

/** Decides which requests may drain the outbox. Exactly one of the two options must be given. */
export type DrainAccess<R> =
  | {
      /**
       * The secret that a request must send as `Authorization: Bearer …`. Vercel's cron jobs send `CRON_SECRET` in this
       * way. While the secret is `undefined` or empty, for example because an environment variable is missing, every
       * request is rejected, and the error logger receives an error.
       */
      readonly secret: string | undefined;
    }
  | {
      /** The request is accepted only if this function returns `true`. */
      readonly authorize: (request: R) => boolean | Promise<boolean>;
    };

/** The same for untyped code, which may give both or neither. */
export interface GivenAccess<R> {
  readonly secret?: string | undefined;
  readonly authorize?: ((request: R) => unknown) | undefined;
}

/**
 * @returns a function that resolves to whether a request is accepted. @throws MessengerError `INVALID_OPTION` without
 *   `secret` and `authorize`, or with both.
 */
export function accessOf<R extends DrainRequest>(
  access: DrainAccess<R>,
  logger: ErrorLogger,
): (request: R) => Promise<boolean> {
  const { secret, authorize } = access as GivenAccess<R>;
  if ('secret' in access === (authorize !== undefined)) {
    throw new MessengerError(
      'INVALID_OPTION',
      'drainHandler needs exactly one of the secret and authorize options, because otherwise anybody could call it',
    );
  }
  if (authorize) return async (request) => (await authorize(request)) === true;
  return async ({ headers }) => {
    if (typeof secret === 'string' && secret !== '') {
      return same(headers.get('authorization') ?? '', `Bearer ${secret}`);
    }
    logger.error(
      new MessengerError(
        'INVALID_OPTION',
        'drainHandler has no secret, so every request is refused: set the secret option',
      ),
    );
    return false;
  };
}

/** Compares digests, which have the same length, so that the time taken does not show where the strings differ. */
async function same(one: string, other: string): Promise<boolean> {
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  const [a, b] = await Promise.all([digest(one), digest(other)]);
  return a.reduce((difference, byte, i) => difference | (byte ^ (b[i] ?? 0)), 0) === 0;
}

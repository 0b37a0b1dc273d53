/**
 * The outbox where nothing runs for long: drained by a cron job's request, or after a response.
 *
 * @module
 */
import { MessengerError, toError } from '../core/errors.js';
import { consoleErrorLogger, safeLogger } from '../core/logger.js';
import type { DrainOptions } from '../core/outbox.js';

/** What can be drained: any `Outbox`, whatever its topics. */
export interface DrainSource {
  drain(options: DrainOptions): Promise<number>;
}

/** The slice of a `Request` that is used. */
export interface DrainRequest {
  readonly headers: { get(name: string): string | null };
}

/** Who may have the outbox drained: one of the two, and nobody without. */
export type DrainAccess<R> =
  | {
      /**
       * Expected as `Authorization: Bearer …`, as Vercel's cron jobs send `CRON_SECRET`. While it is `undefined` or
       * empty, as an environment variable that is missing, every request is refused and the error logger is told.
       */
      readonly secret: string | undefined;
    }
  | {
      /** Nothing but `true` lets a request in. */
      readonly authorize: (request: R) => boolean | Promise<boolean>;
    };

/**
 * A handler of `fetch` style that publishes what there is: for route handlers of Next.js, Hono, Bun, Deno, workers.
 * It answers 200 with `{ published }`; 401 to strangers; and 500 where not everything could be published or
 * `authorize` threw, which the error logger gets in full. The lease is given back before it answers.
 *
 * @throws MessengerError `INVALID_OPTION` without `secret` and `authorize`, or with both.
 *
 * @example
 * ```ts
 * export const GET = drainHandler(outbox, { publisher, secret: process.env.CRON_SECRET, budget: 50_000 });
 * ```
 */
export function drainHandler<R extends DrainRequest = Request>(
  outbox: DrainSource,
  options: DrainOptions & DrainAccess<R>,
): (request: R) => Promise<Response> {
  const { secret, authorize, ...drain } = options as DrainOptions & { secret?: string } & {
    authorize?: (request: R) => boolean | Promise<boolean>;
  };
  if ('secret' in options === (authorize !== undefined)) {
    throw new MessengerError('INVALID_OPTION', 'drainHandler needs one of secret and authorize: anybody could call it');
  }
  const logger = safeLogger(drain.errorLogger ?? consoleErrorLogger);
  const hasSecret = async ({ headers }: R) => {
    if (typeof secret === 'string' && secret !== '') {
      return same(headers.get('authorization') ?? '', `Bearer ${secret}`);
    }
    logger.error(new MessengerError('INVALID_OPTION', 'the secret of drainHandler is missing: requests are refused'));
    return false;
  };
  return async (request) => {
    try {
      const allowed: unknown = await (authorize ?? hasSecret)(request);
      if (allowed !== true) return answer(401, { error: 'unauthorized' });
      return answer(200, { published: await outbox.drain(drain) });
    } catch (error) {
      logger.error(toError(error));
      return answer(500, { error: 'failed: see the log' });
    }
  };
}

/**
 * `outbox.drain` for what runs after a response, such as `after` of Next.js and `waitUntil` of workers: what fails
 * goes to the error logger, and stays stored for the next time.
 *
 * @returns a function that never rejects.
 *
 * @example
 * ```ts
 * after(drainTask(outbox, { publisher, budget: 5_000 }));
 * ```
 */
export function drainTask(outbox: DrainSource, options: DrainOptions): () => Promise<void> {
  const logger = safeLogger(options.errorLogger ?? consoleErrorLogger);
  return async () => {
    try {
      await outbox.drain(options);
    } catch (error) {
      logger.error(toError(error));
    }
  };
}

function answer(status: number, body: object): Response {
  return Response.json(body, { status, headers: { 'cache-control': 'no-store' } });
}

/** Compares digests, which are of one length: how long it takes tells nothing of where texts differ. */
async function same(one: string, other: string): Promise<boolean> {
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  const [a, b] = await Promise.all([digest(one), digest(other)]);
  return a.reduce((difference, byte, i) => difference | (byte ^ (b[i] ?? 0)), 0) === 0;
}

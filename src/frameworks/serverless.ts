/**
 * The outbox in environments where no process runs for long. A request from a cron job drains it, or it is drained
 * after a response.
 *
 * @module
 */
import { toError } from '../core/errors.js';
import { consoleErrorLogger, safeLogger } from '../core/contracts/logger.js';
import type { DrainOptions } from '../core/relay/drain.js';
import { accessOf, type DrainAccess, type DrainRequest, type GivenAccess } from './serverless/access.js';

export type { DrainAccess, DrainRequest } from './serverless/access.js';

/** The part of an `Outbox` that can be drained, for an outbox with any topics. */
export interface DrainSource {
  drain(options: DrainOptions): Promise<number>;
}

/**
 * Returns a `fetch`-style handler that publishes the stored messages, for route handlers in Next.js, Hono, Bun, Deno or
 * workers. The handler answers 200 with `{ published }`, or 401 if the request is not authorized, or 500 if not all
 * messages could be published or `authorize` threw an error. The error logger receives that error in full. The lease is
 * released before the handler answers.
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
  const logger = safeLogger(options.errorLogger ?? consoleErrorLogger);
  const isAllowed = accessOf(options, logger);
  const { secret: _secret, authorize: _authorize, ...drain } = options as DrainOptions & GivenAccess<R>;
  return async (request) => {
    try {
      if (!(await isAllowed(request))) return answer(401, { error: 'unauthorized' });
      return answer(200, { published: await outbox.drain(drain) });
    } catch (error) {
      logger.error(toError(error));
      return answer(500, { error: 'failed: see the log' });
    }
  };
}

/**
 * Wraps `outbox.drain` for hooks that run after a response, such as `after` in Next.js and `waitUntil` in workers. An
 * error goes to the error logger, and the messages stay stored for the next drain.
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

/**
 * The outbox where no process runs for long: drained by the request of a cron job, or after a response.
 *
 * @module
 */
import { toError } from '../core/errors.js';
import { consoleErrorLogger, safeLogger } from '../core/contracts/logger.js';
import type { DrainOptions } from '../core/relay/drain.js';
import { accessOf, type DrainAccess, type DrainRequest, type GivenAccess } from './serverless/access.js';

export type { DrainAccess, DrainRequest } from './serverless/access.js';

/** The part of an `Outbox` that can be drained, whatever its topics. */
export interface DrainSource {
  drain(options: DrainOptions): Promise<number>;
}

/**
 * A `fetch`-style handler that publishes the stored messages, for route handlers of Next.js, Hono, Bun, Deno, workers.
 * It answers 200 with `{ published }`, 401 to strangers, and 500 if not everything could be published or `authorize`
 * threw. The error logger gets that error in full. The lease is given back before the handler answers.
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
 * `outbox.drain` for hooks that run after a response, such as `after` of Next.js and `waitUntil` of workers. An error
 * goes to the error logger, and the messages stay stored for the next time.
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

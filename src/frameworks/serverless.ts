/**
 * The outbox where nothing runs for long: drained by a cron job's request, or after a response.
 *
 * @module
 */
import { toError } from '../core/errors.js';
import { consoleErrorLogger, safeLogger } from '../core/contracts/logger.js';
import type { DrainOptions } from '../core/relay/drain.js';
import { accessOf, type DrainAccess, type DrainRequest, type GivenAccess } from './serverless/access.js';

export type { DrainAccess, DrainRequest } from './serverless/access.js';

/** What can be drained: any `Outbox`, whatever its topics. */
export interface DrainSource {
  drain(options: DrainOptions): Promise<number>;
}

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

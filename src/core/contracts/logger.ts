import { textOf } from '../util/error-text.js';
import { signatureOf } from '../util/error-signature.js';

/**
 * Gets the errors that do not stop the work. A relay limits how many it passes on: see `MessengerOptions.errorLogger`. A
 * logger must not throw. If it does, its error is ignored.
 */
export interface ErrorLogger {
  error(error: Error): void;
  /** Gets one line of text when an outage is over. @default the line is dropped */
  info?(text: string): void;
}

/**
 * The default logger. It writes to standard error, through the console: one line for each error, with the time. A bug is
 * printed with its stack, once.
 */
export const consoleErrorLogger: ErrorLogger = consoleLogger();

/** How many bugs a logger remembers, so that it prints the stack of each only once. */
const MAX_BUGS = 1_000;

/** The same kind of logger. Each of its lines contains `name`, which says to which relay the line belongs. */
export function consoleLogger(name?: string): ErrorLogger {
  const bugs = new Set<string>();
  const head = () => `${new Date().toISOString()} messenger-outbox${name === undefined ? '' : ` (${name})`}:`;
  return {
    error(error) {
      const text = textOf(error).replace(/\s*\n\s*/g, ' ');
      const bug = bugOf(error);
      const signature = bug && signatureOf(bug, 'retryable');
      if (bug?.stack === undefined || signature === undefined || bugs.has(signature)) {
        console.error(`${head()} ${text}`);
        return;
      }
      if (bugs.size < MAX_BUGS) bugs.add(signature);
      console.error(`${head()} ${text}\n${textOf(bug.stack)}`);
    },
    info(text) {
      console.error(`${head()} ${text}`);
    },
  };
}

/** The innermost error in a chain of causes, if it has no code: a bug, because errors of a system have a code. */
function bugOf(error: Error, depth = 10): Error | undefined {
  const { code, cause } = error as Error & { code?: unknown };
  if (cause instanceof Error && depth > 0) return bugOf(cause, depth - 1);
  return code === undefined || code === '' ? error : undefined;
}

/** Wraps a logger, so that an error of the logger itself cannot stop the work. */
export function safeLogger(logger: {
  error(error: Error): unknown;
  info?: ((text: string) => unknown) | undefined;
}): ErrorLogger {
  const safely = (log: () => unknown) => {
    try {
      // An asynchronous logger fits the type too. Its rejection would end the process.
      const logged = log();
      if (logged instanceof Promise) logged.catch(() => undefined);
    } catch {
      // The logger is the last resort. Nothing is left to which its error could be passed.
    }
  };
  return {
    error(error) {
      safely(() => logger.error(error));
    },
    info(text) {
      safely(() => logger.info?.(text));
    },
  };
}

import { textOf } from '../util/error-text.js';
import { signatureOf } from '../util/error-signature.js';

/**
 * Gets the errors that do not stop the work. Of a relay they are no flood: see `MessengerOptions.errorLogger`. It must
 * not throw; if it does, that is ignored.
 */
export interface ErrorLogger {
  error(error: Error): void;
  /** Gets one line when an outage is over. @default nobody is told */
  info?(text: string): void;
}

/** The default: standard error, through the console. One line each, with the time; a bug has its stack, once. */
export const consoleErrorLogger: ErrorLogger = consoleLogger();

/** How many bugs are kept in mind, so that the stack of each is printed once. */
const MAX_BUGS = 1_000;

/** The same, naming whose relay it is. */
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

/** The innermost error that is none of those that a system has: one without a code. */
function bugOf(error: Error, depth = 10): Error | undefined {
  const { code, cause } = error as Error & { code?: unknown };
  if (cause instanceof Error && depth > 0) return bugOf(cause, depth - 1);
  return code === undefined || code === '' ? error : undefined;
}

/** A logger whose own faults cannot stop the work. */
export function safeLogger(logger: {
  error(error: Error): unknown;
  info?: ((text: string) => unknown) | undefined;
}): ErrorLogger {
  const safely = (log: () => unknown) => {
    try {
      // An asynchronous one fits the type: what it rejects with would end the process.
      const logged = log();
      if (logged instanceof Promise) logged.catch(() => undefined);
    } catch {
      // The logger is the last resort: there is nobody left to tell.
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

import { textOf } from '../util/error-text.js';
import { signatureOf } from '../util/error-signature.js';

/**
 * Receives the errors that do not stop the relay or the subscriber. A relay limits how many errors it passes on: see
 * `MessengerOptions.errorLogger`. A logger must not throw. If it does, its error is ignored.
 */
export interface ErrorLogger {
  error(error: Error): void;
  /** Receives one line when an outage is over. @default the line is dropped */
  info?(text: string): void;
}

/**
 * The default logger. It writes each error with the time, on one line, to the console's standard error. If the error is
 * a bug, the logger also prints its stack, but only once for each bug.
 */
export const consoleErrorLogger: ErrorLogger = consoleLogger();

/** How many bugs a logger remembers, so that it prints the stack of each bug only once. */
const MAX_BUGS = 1_000;

/**
 * Creates a logger like `consoleErrorLogger`. If `name` is given, each line contains it, to show which relay logged the
 * line.
 */
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

/**
 * Returns the innermost error in a chain of causes, if it has no code. Such an error counts as a bug, because errors
 * from other systems have a code.
 */
function bugOf(error: Error, depth = 10): Error | undefined {
  const { code, cause } = error as Error & { code?: unknown };
  if (cause instanceof Error && depth > 0) return bugOf(cause, depth - 1);
  return code === undefined || code === '' ? error : undefined;
}

/** Wraps a logger, so that an error in the logger cannot stop the caller. */
export function safeLogger(logger: {
  error(error: Error): unknown;
  info?: ((text: string) => unknown) | undefined;
}): ErrorLogger {
  const safely = async (log: () => unknown) => {
    try {
      // The type also allows an asynchronous logger. If its rejection were not handled, it would end the process.
      await log();
    } catch {
      // The logger is the last resort. Nothing else could report its own error.
    }
  };
  return {
    error(error) {
      void safely(() => logger.error(error));
    },
    info(text) {
      void safely(() => logger.info?.(text));
    },
  };
}

/** Gets the errors that do not stop the work. It must not throw; if it does, that is ignored. */
export interface ErrorLogger {
  error(error: Error): void;
}

/** The default: standard error, through the console. */
export const consoleErrorLogger: ErrorLogger = {
  error(error) {
    console.error(error);
  },
};

/** A logger whose own faults can not stop the work. */
export function safeLogger(logger: { error(error: Error): unknown }): ErrorLogger {
  return {
    error(error) {
      try {
        // An asynchronous one fits the type: what it rejects with would end the process.
        const logged = logger.error(error);
        if (logged instanceof Promise) logged.catch(() => undefined);
      } catch {
        // The logger is the last resort: there is nobody left to tell.
      }
    },
  };
}

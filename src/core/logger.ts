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
export function safeLogger(logger: ErrorLogger): ErrorLogger {
  return {
    error(error) {
      try {
        logger.error(error);
      } catch {
        // The logger is the last resort: there is nobody left to tell.
      }
    },
  };
}

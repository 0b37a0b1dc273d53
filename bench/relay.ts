import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** What a relay's process is told. */
export interface RelayConfig {
  /** Its destination, and the name of its connections. */
  readonly name: string;
  readonly url: string;
  /** Milliseconds that its publisher takes for each batch of a hundred. */
  readonly delay: number;
}

/** A relay in a process of its own. */
export interface RelayProcess {
  readonly pid: number;
  /** How many messages it has told of. */
  published(): number;
  /** Resolves, with the time, when it tells of a message. Rejects when it has ended. */
  next(): Promise<number>;
  stop(): Promise<void>;
}

export function startRelay(config: RelayConfig): RelayProcess {
  const script = fileURLToPath(new URL('relay-process.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, script, JSON.stringify(config)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let published = 0;
  child.on('message', (count: number) => {
    published += count;
  });
  const exited = once(child, 'exit');
  const failed = exited.then(([code]: (number | null)[]) => {
    throw new Error(`the relay's process ended with ${code}`);
  });
  failed.catch(() => undefined);
  return {
    pid: child.pid!,
    published: () => published,
    next: async () => {
      await Promise.race([once(child, 'message'), failed]);
      return performance.now();
    },
    stop: async () => {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

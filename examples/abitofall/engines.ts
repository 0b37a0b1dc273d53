import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SNSClient } from '@aws-sdk/client-sns';
import { SQSClient } from '@aws-sdk/client-sqs';
import pg from 'pg';

/** Where everything is: what the process of the engines tells when they run. */
export interface Addresses {
  /** Connection strings. */
  readonly databases: { readonly shop: string; readonly warehouse: string; readonly verifier: string };
  /** Of SNS and of SQS. */
  readonly endpoint: string;
  /** The ARN of the topic, and the URLs of two queues that are subscribed to it. */
  readonly topic: string;
  readonly queue: string;
  readonly verifierQueue: string | undefined;
}

/** Where the verifier looks. */
export type VerifierAddresses = Pick<Addresses, 'databases' | 'endpoint'> & { readonly queue: string | undefined };

/** The engines, running, and clients of them. */
export interface Engines {
  readonly description: string;
  readonly databases: { readonly shop: pg.Pool; readonly warehouse: pg.Pool };
  readonly sns: SNSClient;
  readonly sqs: SQSClient;
  readonly topic: string;
  readonly queue: string;
  readonly verifier: VerifierAddresses;
  /** Closes the clients, stops the engines and removes their files. */
  stop(): Promise<void>;
}

/** The root of the package, where `tsx` finds the package's own names. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Starts PostgreSQL, SNS and SQS in a process of their own: Ctrl-C in a terminal goes to a whole group
 * of processes, and the database must outlive those who work with it. That process ends, and removes
 * all files, when this one is gone, whatever ended it.
 */
export async function startEngines({ withVerifier = false } = {}): Promise<Engines> {
  const child = fork(fileURLToPath(new URL('engines-process.ts', import.meta.url)), [String(withVerifier)], {
    detached: true,
    cwd: ROOT,
    execArgv: ['--import', 'tsx'],
    env: withoutPostgres(process.env),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const addresses = await answer(child);
  const aws = {
    endpoint: addresses.endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
  };
  let stopping = false;
  const onBroken = (error: Error) => {
    if (!stopping) console.error(`a connection to the database broke: ${error.message}`);
  };
  const shop = openPool(addresses.databases.shop).on('error', onBroken);
  const warehouse = openPool(addresses.databases.warehouse).on('error', onBroken);
  const sns = new SNSClient(aws);
  const sqs = new SQSClient(aws);
  return {
    description: `PostgreSQL 17 on ${new URL(addresses.databases.shop).host}, SNS and SQS on ${new URL(addresses.endpoint).host}`,
    databases: { shop, warehouse },
    sns,
    sqs,
    topic: addresses.topic,
    queue: addresses.queue,
    verifier: { databases: addresses.databases, endpoint: addresses.endpoint, queue: addresses.verifierQueue },
    async stop() {
      stopping = true;
      sns.destroy();
      sqs.destroy();
      await Promise.all([shop.end(), warehouse.end()]);
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.disconnect();
      await exited;
    },
  };
}

async function answer(child: ChildProcess): Promise<Addresses> {
  return new Promise((resolve, reject) => {
    child.once('message', (message) => {
      resolve(message as Addresses);
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      reject(new Error(`the engines did not start (exit code ${String(code)}): the reason is above`));
    });
  });
}

function openPool(connectionString: string): pg.Pool {
  // `ssl` and `options` are given: without them, those of the user's own databases would be used.
  return new pg.Pool({ connectionString, ssl: false, options: '', max: 20, connectionTimeoutMillis: 10_000 });
}

/** `PGSSLMODE` and the like are about other databases than the demo's own. */
export function withoutPostgres(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('PG')));
}

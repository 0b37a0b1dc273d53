import type { SNSClient } from '@aws-sdk/client-sns';
import { Messenger } from 'messenger-outbox';
import type { PostgresStore } from 'messenger-outbox/postgres';
import { SnsPublisher } from 'messenger-outbox/sns';

/** Publishes what is stored, in order per key, and cleans away what is older than an hour. */
export async function runRelay({
  store,
  sns,
  topic,
  signal,
}: {
  store: PostgresStore;
  sns: SNSClient;
  topic: string;
  signal: AbortSignal;
}): Promise<void> {
  const messenger = new Messenger(store, new SnsPublisher(sns, { topic }), { cleanUp: 3_600_000 });
  await messenger.start({ signal });
}

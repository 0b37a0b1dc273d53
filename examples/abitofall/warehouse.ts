import type { SQSClient } from '@aws-sdk/client-sqs';
import type { Message } from 'messenger-outbox';
import { SqsSubscriber } from 'messenger-outbox/sqs';
import type { Pool } from 'pg';
import type { OrderCreated } from './shop.js';

export interface ReceiveOptions {
  readonly sqs: SQSClient;
  /** The URL of the queue. */
  readonly queue: string;
  /** Prints each so-manieth message; the first ones in any case. */
  readonly showEvery: number;
  readonly signal: AbortSignal;
}

export interface Warehouse {
  /** Receives until the signal aborts. */
  receive(options: ReceiveOptions): Promise<void>;
}

/** How many messages are printed in any case. */
const FIRST = 5;

/** The consumer, with a database of its own: it writes down each message that it gets, as often as it gets it. */
export async function openWarehouse(pool: Pool): Promise<Warehouse> {
  await pool.query(`
    CREATE TABLE arrivals (
      n bigint GENERATED ALWAYS AS IDENTITY,
      message_id text NOT NULL
    )`);
  let arrived = 0;

  async function receive({ sqs, queue, showEvery, signal }: ReceiveOptions): Promise<void> {
    const handler = async (message: Message): Promise<void> => {
      await pool.query('INSERT INTO arrivals (message_id) VALUES ($1)', [message.id]);
      arrived += 1;
      if (arrived <= FIRST || arrived % showEvery === 0) console.log(describe(message));
    };
    if (showEvery > 1) console.log(`(of the messages that arrive, every ${String(showEvery)}th is shown)`);
    await new SqsSubscriber(sqs, { queue }).subscribe({ name: 'warehouse', handler }, { signal });
  }

  return { receive };
}

function describe({ id, topic, payload }: Message): string {
  const { customer, number, cents } = JSON.parse(new TextDecoder().decode(payload)) as OrderCreated;
  return `  arrived: ${topic ?? '-'} ${customer} #${String(number)}, ${(cents / 100).toFixed(2)} EUR (${id})`;
}

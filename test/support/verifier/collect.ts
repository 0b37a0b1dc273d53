import { DeleteMessageBatchCommand, ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import type pg from 'pg';

/** Moves everything that a queue holds into the table of arrivals, until a second passes without a message. */
export async function collect(records: pg.Client, queue: string, endpoint: string | undefined): Promise<void> {
  if (endpoint === undefined) throw new Error('--endpoint is missing: the address of SQS');
  const sqs = new SQSClient({
    endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
  });
  for (;;) {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({
        QueueUrl: queue,
        MaxNumberOfMessages: 10,
        WaitTimeSeconds: 1,
        MessageAttributeNames: ['message-id'],
        MessageSystemAttributeNames: ['SequenceNumber'],
      }),
    );
    if (Messages.length === 0) break;
    const arrived = Messages.map(({ MessageId, MessageAttributes, Attributes }) => ({
      message_id: MessageAttributes?.['message-id']?.StringValue ?? `no id: ${String(MessageId)}`,
      sequence: Attributes?.SequenceNumber,
    }));
    await records.query(
      `INSERT INTO arrivals (message_id, sequence)
        SELECT message_id, sequence FROM json_to_recordset($1) AS a (message_id text, sequence numeric)`,
      [JSON.stringify(arrived)],
    );
    const Entries = Messages.map(({ ReceiptHandle }, i) => ({ Id: String(i), ReceiptHandle }));
    const { Failed = [] } = await sqs.send(new DeleteMessageBatchCommand({ QueueUrl: queue, Entries }));
    if (Failed.length > 0) throw new Error(`SQS did not delete ${String(Failed.length)} messages`);
  }
  sqs.destroy();
}

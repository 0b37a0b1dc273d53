import type { Message } from '../../src/core/contracts/message.js';
import type { Delivery } from '../../src/brokers/aws/wire/decode.js';

interface Envelope {
  readonly at: string;
  readonly topic?: string;
  readonly key?: string;
  readonly encoding?: 'base64';
  readonly metadata?: Record<string, string>;
}

/**
 * How version 0.1 read what its publishers wrote, id attribute `message-id`: subscribers of it run on while publishers
 * are replaced. It knows an envelope by the types of its fields, and takes every attribute but the two for metadata.
 */
export function decodeAsBefore(delivery: Delivery): Message {
  const { body, attributes } = contentOf(delivery);
  const { messenger, 'message-id': id, ...rest } = attributes;
  const envelope = JSON.parse(messenger ?? '') as Envelope;
  return {
    id: id ?? delivery.MessageId ?? '',
    metadata: { ...rest, ...envelope.metadata },
    payload: new Uint8Array(Buffer.from(body, envelope.encoding ?? 'utf8')),
    published: true,
    at: new Date(envelope.at),
    ...(envelope.topic === undefined ? {} : { topic: envelope.topic }),
    ...(envelope.key === undefined ? {} : { key: envelope.key }),
  };
}

function contentOf({ Body = '', MessageAttributes = {} }: Delivery): {
  body: string;
  attributes: Record<string, string>;
} {
  const attributes = Object.entries(MessageAttributes);
  const textOf = (values: (readonly [string, string | undefined])[]) =>
    Object.fromEntries(values.map(([name, value]) => [name, value ?? '']));
  if (attributes.length > 0) {
    return { body: Body, attributes: textOf(attributes.map(([name, { StringValue }]) => [name, StringValue])) };
  }
  const notification = JSON.parse(Body) as { Message: string; MessageAttributes: Record<string, { Value: string }> };
  const values = Object.entries(notification.MessageAttributes).map(([name, { Value }]) => [name, Value] as const);
  return { body: notification.Message, attributes: textOf(values) };
}

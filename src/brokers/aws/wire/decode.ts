import type { Message } from '../../../core/contracts/message.js';
import { decodeEnvelope, ENVELOPE_KEY, type Attributes } from './attributes.js';
import { decodeBody } from './body.js';

/** The part of an SQS delivery that is read. */
export interface Delivery {
  readonly MessageId?: string | undefined;
  readonly Body?: string | undefined;
  /** System attributes: `SentTimestamp` and `MessageGroupId`. */
  readonly Attributes?: Readonly<Record<string, string | undefined>> | undefined;
  readonly MessageAttributes?: Readonly<Record<string, DeliveredAttribute>> | undefined;
}

/** An attribute: `StringValue` for strings and numbers, `BinaryValue` otherwise. */
export interface DeliveredAttribute {
  readonly StringValue?: string | undefined;
  readonly BinaryValue?: Uint8Array | undefined;
}

/** The content of a delivery, independent of how it arrived. */
interface Content {
  readonly id: string;
  readonly body: string;
  readonly at: Date;
  readonly attributes: Attributes;
}

/**
 * Returns the message in an SQS delivery. The message may come from a publisher in this package or from any other
 * sender. It may come through SQS directly, or through SNS, with raw delivery or without it (in a JSON envelope). Never
 * throws, so that every message can be handled.
 *
 * The id is the attribute that `messageIdKey` names, or else the broker's message id. Binary attributes become base64.
 */
export function decodeDelivery(delivery: Delivery, messageIdKey: string): Message {
  const { id, body, at, attributes } = contentOf(delivery);
  const envelope = decodeEnvelope(attributes);
  // Messages from older versions have no `own`. In these messages, attributes named `topic` or `key` are metadata.
  const own = envelope === undefined ? [] : [ENVELOPE_KEY, ...(envelope.own ?? [])];
  const others = new Map(Object.entries(attributes).filter(([name]) => !own.includes(name)));
  const givenId = envelope?.id ?? others.get(messageIdKey);
  others.delete(messageIdKey);
  // For a message from another sender, the group is the key. Our own envelope shows whether there is a key.
  const key = envelope === undefined ? delivery.Attributes?.['MessageGroupId'] : envelope.key;
  return {
    id: givenId ?? id,
    metadata: Object.fromEntries([...others, ...Object.entries(envelope?.metadata ?? {})]),
    payload: decodeBody({ body, base64: envelope?.encoding === 'base64' }),
    published: true,
    at: envelope?.at === undefined ? at : new Date(envelope.at),
    ...(envelope?.topic === undefined ? {} : { topic: envelope.topic }),
    ...(key === undefined ? {} : { key }),
  };
}

function contentOf(delivery: Delivery): Content {
  const body = delivery.Body ?? '';
  const attributes = Object.entries(delivery.MessageAttributes ?? {});
  // SNS puts the attributes inside its envelope. So if the delivery itself has attributes, its body only looks like an
  // envelope.
  const notification = attributes.length === 0 ? parseNotification(body) : undefined;
  if (notification !== undefined) return notification;
  const sent = Number(delivery.Attributes?.['SentTimestamp']);
  return {
    id: delivery.MessageId ?? '',
    body,
    at: Number.isFinite(sent) ? new Date(sent) : new Date(),
    attributes: Object.fromEntries(
      attributes.map(([name, { StringValue, BinaryValue }]) => [
        name,
        StringValue ?? Buffer.from(BinaryValue ?? []).toString('base64'),
      ]),
    ),
  };
}

/** Returns the content of an SNS envelope, or `undefined` for any other body. */
function parseNotification(body: string): Content | undefined {
  if (!body.startsWith('{')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined;
  }
  const { Type, MessageId, TopicArn, Message, Timestamp, MessageAttributes } = value as Record<string, unknown>;
  if (Type !== 'Notification' || typeof TopicArn !== 'string') return undefined;
  if (typeof MessageId !== 'string' || typeof Message !== 'string') return undefined;
  const sent = typeof Timestamp === 'string' ? new Date(Timestamp) : new Date(NaN);
  return {
    id: MessageId,
    body: Message,
    at: Number.isNaN(sent.getTime()) ? new Date() : sent,
    attributes: Object.fromEntries(
      Object.entries((MessageAttributes ?? {}) as Record<string, { Value?: unknown } | null>).map(([name, entry]) => [
        name,
        typeof entry?.Value === 'string' ? entry.Value : '',
      ]),
    ),
  };
}

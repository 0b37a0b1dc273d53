import { PublishError } from '../../../core/errors.js';
import type { Message } from '../../../core/contracts/message.js';
import { sendInLanes } from '../../../core/publish/lanes.js';
import { ACKNOWLEDGED, type PublishOptions, type PublishResult } from '../../../core/contracts/publisher.js';
import { encodeAttributes } from './attributes.js';
import { byteLength, encodeBody } from './body.js';
import { requestFailure } from './errors.js';
import { fifoParameters, groupOf, type FifoParameters } from './fifo.js';
import { readReply, type BatchReply } from './reply.js';
import type { PublisherSettings } from './settings.js';

/** The largest number of entries in one request to SQS or SNS. */
const MAX_ENTRIES = 10;

/** One message in a batch. SQS and SNS have different names for its body. */
export interface Entry {
  readonly Id: string;
  readonly body: string;
  readonly MessageAttributes: Record<string, { DataType: string; StringValue: string }>;
  /** The FIFO parameters, if the destination is FIFO. */
  readonly fifo: FifoParameters | Record<string, never>;
}

/** Sends one batch. Rejects as the SDK does. */
export type SendBatch = (entries: readonly Entry[], signal: AbortSignal | undefined) => Promise<BatchReply>;

/** A message that is ready to be sent, or the reason why it cannot be sent. */
interface Prepared {
  readonly lane: string | undefined;
  readonly entry?: Entry;
  readonly size: number;
  readonly error?: PublishError;
}

/**
 * Sends messages in batches of at most 10 entries and `maxBatchBytes`, and returns a result for each message. Messages
 * in the same group, or with the same key if there are no groups, are sent one after the other, because AWS may fail
 * one entry in a batch and accept a later entry in the same group.
 */
export async function sendBatches(
  messages: readonly Message[],
  settings: PublisherSettings,
  send: SendBatch,
  options: PublishOptions = {},
): Promise<readonly PublishResult[]> {
  return sendInLanes(await Promise.all(messages.map((message, place) => prepare(message, String(place), settings))), {
    laneOf: (item) => item.lane,
    refusalOf: (item) => item.error,
    sizeOf: (item) => item.size,
    maxItems: MAX_ENTRIES,
    maxSize: settings.maxBatchBytes,
    room: settings.room,
    call: options,
    send: (items) =>
      sendEntries(
        items.flatMap(({ entry }) => (entry === undefined ? [] : [entry])),
        send,
        options.signal,
      ),
  });
}

/** Sends one message, and throws its error if it fails. */
export async function sendOne(
  message: Message,
  settings: PublisherSettings,
  send: SendBatch,
  options: PublishOptions = {},
): Promise<void> {
  const [result] = await sendBatches([message], settings, send, options);
  if (result?.acknowledged === false) throw result.error;
}

async function prepare(message: Message, id: string, settings: PublisherSettings): Promise<Prepared> {
  const group = settings.fifo ? groupOf(message, settings) : undefined;
  const lane = group ?? message.key;
  try {
    const { body, base64 } = encodeBody(message.payload);
    const attributes = encodeAttributes(message, settings, base64);
    const size = sizeOf(body, attributes);
    if (size > settings.maxBatchBytes) throw tooLarge(message, size, settings.maxBatchBytes);
    const MessageAttributes = Object.fromEntries(
      Object.entries(attributes).map(([name, value]) => [name, { DataType: 'String', StringValue: value }]),
    );
    const fifo = settings.fifo ? await fifoParameters(message, group, settings) : {};
    return { lane, size, entry: { Id: id, body, MessageAttributes, fifo } };
  } catch (error) {
    // A message that cannot be sent must not make the whole call reject, because the other messages can be sent.
    return { lane, size: 0, error: error instanceof PublishError ? error : requestFailure(error) };
  }
}

/** Returns the size that AWS counts: the body, and the name, type and value of every attribute. */
function sizeOf(body: string, attributes: Readonly<Record<string, string>>): number {
  return Object.entries(attributes).reduce(
    (size, [name, value]) => size + byteLength(name) + 'String'.length + byteLength(value),
    byteLength(body),
  );
}

async function sendEntries(
  entries: readonly Entry[],
  send: SendBatch,
  signal: AbortSignal | undefined,
): Promise<PublishResult[]> {
  try {
    const reply = await send(entries, signal);
    const errors = readReply(
      entries.map(({ Id }) => Id),
      reply,
    );
    return errors.map((error) => (error === undefined ? ACKNOWLEDGED : { acknowledged: false, error }));
  } catch (thrown) {
    const error = requestFailure(thrown, signal);
    // If AWS rejects a request as a whole, a single message may be the cause. Sending each message alone shows which
    // one.
    if (error.kind === 'permanent' && entries.length > 1) {
      return (await Promise.all(entries.map((entry) => sendEntries([entry], send, signal)))).flat();
    }
    return entries.map(() => ({ acknowledged: false, error }));
  }
}

/** The largest size, in bytes, that AWS accepts for a message and for a request. */
const LARGEST = 1_048_576;

function tooLarge(message: Message, size: number, limit: number): PublishError {
  const advice =
    size > LARGEST
      ? 'AWS accepts no message above 1,048,576 bytes: keep the content elsewhere and send a reference to it'
      : 'AWS accepts up to 1,048,576 bytes if the MaximumMessageSize of the topic or queue allows it: raise both';
  return new PublishError(
    `message ${message.id} is too large: ${String(size)} bytes with its attributes, but the limit (maxBatchBytes) is ${String(limit)}. ${advice}`,
    { kind: 'permanent' },
  );
}

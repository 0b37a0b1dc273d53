import { MessengerError, toError } from '../errors.js';
import { changedBy, faultText, jsonOf } from './json.js';
import { newMessage, type Message, type NewMessageOptions } from '../contracts/message.js';
import { describe } from '../util/describe.js';
import { DEFAULT_DESTINATION } from '../contracts/feed.js';
import type { TopicOptions } from '../relay/options.js';
import { policyOf } from '../relay/policies.js';
import { checkKeys, numberOption, type KeysOf } from '../util/options.js';
import { issuesText, type SchemaInput, type SchemaOutput, type StandardSchema } from './standard-schema.js';

/** The definition of one topic: the schema of its messages, the key that orders them, and how failures are handled. */
export interface Topic<S extends StandardSchema = StandardSchema> extends TopicOptions {
  /** The schema for the payloads, from zod, valibot, arktype or any other library that supports Standard Schema. */
  readonly schema: S;
  /**
   * Returns the key of a message. Messages with the same key are published in order.
   * @default no key: the message has no order relative to others
   */
  key?(this: void, payload: SchemaOutput<S>): string | undefined;
  /**
   * The only destination that publishes the topic's messages, such as the destination for a certain broker. A message
   * keeps the destination that its topic had when the message was stored.
   * @default every destination that publishes the topic; only `default` if no other destination was added
   */
  readonly destination?: string;
  /** The version of the schema. It is stored with each message, unless it is 1. @default 1 */
  readonly version?: number;
  /**
   * Converts a payload that was stored with an older version into a payload that this schema accepts. Without this
   * function, messages with older versions are rejected.
   */
  upcast?(this: void, payload: unknown, version: number): unknown;
}

/**
 * Topics by name, as `defineTopics` accepts them. Each key of `S` is the name of a topic, and its value is the topic's
 * schema.
 */
export type Topics<S extends Schemas = Schemas> = { readonly [Name in keyof S]: Topic<S[Name]> };
export type Schemas = Readonly<Record<string, StandardSchema>>;

/** The payload type that `send` accepts for a topic. */
export type PayloadOf<S extends Schemas, Name extends keyof S> = SchemaInput<S[Name]>;
/** The payload type that a topic's handler receives. */
export type ParsedOf<S extends Schemas, Name extends keyof S> = SchemaOutput<S[Name]>;

/** The metadata key for the version of a payload's schema. Version 1 is not stored. */
const VERSION = 'schema-version';
const JSON_TYPE = { 'content-type': 'application/json' };

/** The options of `send` for one message. */
export type SendOptions = Omit<NewMessageOptions, 'topic' | 'destination'>;

const SEND_KEYS = {
  id: true,
  metadata: true,
  at: true,
  key: true,
  deliverAt: true,
  holdKey: true,
} satisfies KeysOf<SendOptions>;
const TOPIC_KEYS = {
  schema: true,
  key: true,
  destination: true,
  version: true,
  upcast: true,
  retry: true,
  maxParked: true,
} satisfies KeysOf<Topic>;

/**
 * Defines topics, both for applications that store messages and for applications that handle them. Checks the topics,
 * and returns them unchanged.
 *
 * @throws MessengerError `INVALID_OPTION` that names the topic and says what is wrong with it.
 */
export function defineTopics<S extends Schemas>(topics: Topics<S>): Topics<S> {
  if (typeof topics !== 'object' || (topics as unknown) === null) {
    throw new MessengerError('INVALID_OPTION', `topics must be an object of topics by name, got ${describe(topics)}`);
  }
  for (const [name, topic] of Object.entries(topics) as [string, Topic][]) {
    const at = `topics[${JSON.stringify(name)}]`;
    if (name === '') throw new MessengerError('INVALID_OPTION', 'a topic must have a name');
    if (typeof topic !== 'object' || (topic as unknown) === null) {
      throw new MessengerError('INVALID_OPTION', `${at} must be an object with a schema, got ${describe(topic)}`);
    }
    checkKeys(topic, TOPIC_KEYS, at);
    const schema: unknown = topic.schema;
    // Some schemas, such as arktype's, are functions.
    const standard = (schema as Partial<StandardSchema> | null | undefined)?.['~standard'];
    if (typeof standard?.validate !== 'function') {
      throw new MessengerError(
        'INVALID_OPTION',
        `${at}.schema must be a Standard Schema (zod 3.24, valibot 1, arktype 2 or newer), got ${describe(schema)}`,
      );
    }
    const destination: unknown = topic.destination;
    if (destination !== undefined && (typeof destination !== 'string' || destination === '')) {
      throw new MessengerError(
        'INVALID_OPTION',
        `${at}.destination must be the name of a destination, got ${describe(destination)}`,
      );
    }
    // Use the shortest possible `minDelay` for this check, because a relay's `minDelay` for all topics can be shorter
    // than the default.
    policyOf(`${at}.`, { minDelay: 1, ...topic.retry }, topic.maxParked);
    numberOption(`${at}.version`, topic.version, 1, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    for (const member of ['key', 'upcast'] as const) {
      if (topic[member] === undefined || typeof topic[member] === 'function') continue;
      throw new MessengerError('INVALID_OPTION', `${at}.${member} must be a function, got ${describe(topic[member])}`);
    }
  }
  return topics;
}

/** Returns the destinations that these topics name, without duplicates. */
export function addressedBy(topics: Topics): string[] {
  return [...new Set(Object.values(topics).flatMap(({ destination }) => destination ?? []))];
}

/**
 * Returns the destinations that publish these topics, without duplicates. Includes `default`, unless every topic names
 * another destination.
 */
export function destinationsOf(topics: Topics): string[] {
  const all = Object.values(topics);
  const others = all.length === 0 || all.some(({ destination }) => destination === undefined);
  return [...new Set([...addressedBy(topics), ...(others ? [DEFAULT_DESTINATION] : [])])];
}

/**
 * Creates a message for a topic. The schema parses the payload, and the message contains the output of the schema as
 * JSON. If the schema strips fields or adds defaults, the JSON reflects that. The schema must also accept this JSON and
 * produce an equal value from it, so that handlers receive the value that was stored. Properties that are `undefined`,
 * and properties whose keys are symbols, are left out.
 *
 * @throws MessengerError `INVALID_MESSAGE` if the topic does not exist, if the schema rejects the payload, or if the
 *   schema does not produce an equal value from the JSON.
 */
export async function messageOf(
  topics: Topics,
  name: string,
  payload: unknown,
  sendOptions: SendOptions = {},
): Promise<Message> {
  checkKeys(sendOptions, SEND_KEYS);
  const { metadata, ...options } = sendOptions;
  const topic = topicOf(topics, name);
  const parsed = await parsedBy(topic, payload, `the payload of ${JSON.stringify(name)}`);
  const json = jsonOf(parsed, `the payload of ${JSON.stringify(name)}`);
  await assertKept(topic, name, parsed, json);
  const { version = 1 } = topic;
  // The metadata can come from another message. In that case, its version says nothing about this payload.
  const { [VERSION]: _, ...rest } = metadata ?? {};
  return newMessage(json, {
    ...options,
    key: options.key ?? topic.key?.(parsed),
    topic: name,
    destination: topic.destination,
    metadata: { ...rest, ...JSON_TYPE, ...(version > 1 && { [VERSION]: String(version) }) },
  });
}

/**
 * Parses a message's payload with the schema of its topic.
 *
 * @throws MessengerError `INVALID_MESSAGE` if the topic does not exist, the payload is not JSON, or the schema rejects
 *   the payload. Also if the payload's version is unknown or newer, or if it is older and the topic has no `upcast`.
 */
export async function payloadOf(topics: Topics, message: Message): Promise<unknown> {
  const topic = topicOf(topics, message.topic ?? '');
  const what = `message ${message.id} of ${JSON.stringify(message.topic)}`;
  let payload: unknown;
  try {
    payload = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.payload));
  } catch (cause) {
    throw new MessengerError('INVALID_MESSAGE', `${what} is not valid JSON`, { cause });
  }
  const { version = 1, upcast } = topic;
  const stored = Number(message.metadata[VERSION] ?? 1);
  if (stored !== version) {
    const isOlder = stored >= 1 && stored < version;
    if (!isOlder || upcast === undefined) {
      const remedy = isOlder ? 'give the topic an upcast' : 'update the consumer';
      throw new MessengerError(
        'INVALID_MESSAGE',
        `${what} has version ${String(message.metadata[VERSION] ?? 1)}, but this consumer has version ${String(version)}: ${remedy}`,
      );
    }
    payload = await upcast(payload, stored);
  }
  return parsedBy(topic, payload, what);
}

function topicOf(topics: Topics, name: string): Topic {
  const topic = Object.hasOwn(topics, name) ? topics[name] : undefined;
  if (topic) return topic;
  const known = Object.keys(topics).map((each) => JSON.stringify(each));
  throw new MessengerError(
    'INVALID_MESSAGE',
    `there is no topic ${JSON.stringify(name)}: the topics are ${known.join(', ') || 'none'}`,
  );
}

async function parsedBy({ schema }: Topic, value: unknown, what: string): Promise<never> {
  const result = await schema['~standard'].validate(value);
  if (result.issues === undefined) return result.value as never;
  throw new MessengerError('INVALID_MESSAGE', `${what} does not match its schema: ${issuesText(result.issues)}`);
}

/** @throws MessengerError `INVALID_MESSAGE` if a handler would receive a value that differs from `parsed`. */
async function assertKept(topic: Topic, name: string, parsed: unknown, json: string): Promise<void> {
  let again: unknown;
  try {
    again = await parsedBy(
      topic,
      JSON.parse(json),
      `the payload of ${JSON.stringify(name)}, when read back from JSON,`,
    );
  } catch (error) {
    // The schema reports only that it received null or a string. The actual cause is a value that JSON cannot
    // represent, so the error also names that value.
    const fault = changedBy(parsed, JSON.parse(json));
    if (fault?.kind === undefined) throw error;
    throw new MessengerError(
      'INVALID_MESSAGE',
      `${toError(error).message} (${faultText(fault)}, which JSON does not have)`,
      {
        cause: error,
      },
    );
  }
  const fault = changedBy(parsed, again);
  if (fault === undefined) return;
  if (fault.kind !== undefined) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `the payload of ${JSON.stringify(name)} cannot be stored as JSON: ${faultText(fault)}, which JSON does not keep. Send a value that JSON keeps, or let the schema turn the JSON back into the same value`,
    );
  }
  throw new MessengerError(
    'INVALID_MESSAGE',
    `the schema of ${JSON.stringify(name)} changes its own output when it reads the output back${fault.path === '' ? '' : `, at ${fault.path}`}: a schema must leave its own output unchanged`,
  );
}

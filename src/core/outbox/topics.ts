import { MessengerError, toError } from '../errors.js';
import { changedBy, faultText, jsonOf } from './json.js';
import { newMessage, type Message, type NewMessageOptions } from '../contracts/message.js';
import { describe } from '../util/describe.js';
import { DEFAULT_DESTINATION } from '../contracts/feed.js';
import type { TopicOptions } from '../relay/options.js';
import { policyOf } from '../relay/policies.js';
import { checkKeys, numberOption, type KeysOf } from '../util/options.js';
import { issuesText, type SchemaInput, type SchemaOutput, type StandardSchema } from './standard-schema.js';

/** All that is to be said of one topic: what its messages are, in which order they go, what becomes of failures. */
export interface Topic<S extends StandardSchema = StandardSchema> extends TopicOptions {
  /** What its payloads are: of zod, valibot, arktype, or any other Standard Schema. */
  readonly schema: S;
  /** The key of a message: those of one key are published in order. @default none: no order among others */
  key?(this: void, payload: SchemaOutput<S>): string | undefined;
  /**
   * The one destination that publishes its messages, such as that of its broker. A message keeps the one of when it
   * was stored. @default every destination that takes the topic: `default`, where no other was added
   */
  readonly destination?: string;
  /** The version of the schema: stored with each message. @default 1 */
  readonly version?: number;
  /** Makes what was stored by an older version into what this schema takes. Without it they are refused. */
  upcast?(this: void, payload: unknown, version: number): unknown;
}

/** Topics by their names, as `defineTopics` takes them: each key of `S` is a topic, its value the schema. */
export type Topics<S extends Schemas = Schemas> = { readonly [Name in keyof S]: Topic<S[Name]> };
export type Schemas = Readonly<Record<string, StandardSchema>>;

/** What `send` takes for a topic. */
export type PayloadOf<S extends Schemas, Name extends keyof S> = SchemaInput<S[Name]>;
/** What a handler gets of it. */
export type ParsedOf<S extends Schemas, Name extends keyof S> = SchemaOutput<S[Name]>;

/** Where the version of a payload's schema is: absent for the first. */
const VERSION = 'schema-version';
const JSON_TYPE = { 'content-type': 'application/json' };

/** What can be said of one message beside its payload. */
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
 * Topics for whoever stores and whoever handles them, as they are: to be shared by both.
 *
 * @throws MessengerError `INVALID_OPTION` naming the topic and what is wrong with it.
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
    // A relay may have a shorter pause for all topics than the default.
    policyOf(`${at}.`, { minDelay: 1, ...topic.retry }, topic.maxParked);
    numberOption(`${at}.version`, topic.version, 1, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    for (const member of ['key', 'upcast'] as const) {
      if (topic[member] === undefined || typeof topic[member] === 'function') continue;
      throw new MessengerError('INVALID_OPTION', `${at}.${member} must be a function, got ${describe(topic[member])}`);
    }
  }
  return topics;
}

/** The destinations that these topics name, each once. */
export function addressedBy(topics: Topics): string[] {
  return [...new Set(Object.values(topics).flatMap(({ destination }) => destination ?? []))];
}

/** The destinations that publish these topics, each once: `default` too, unless all of them name one. */
export function destinationsOf(topics: Topics): string[] {
  const all = Object.values(topics);
  const others = all.length === 0 || all.some(({ destination }) => destination === undefined);
  return [...new Set([...addressedBy(topics), ...(others ? [DEFAULT_DESTINATION] : [])])];
}

/**
 * A message of a topic. What is stored is what the schema makes of the payload, as JSON: what it strips is not
 * sent, what it fills in is. And only where the schema takes that JSON again and makes the same of it, so that
 * handlers get what was stored. Properties that are `undefined`, and those whose keys are symbols, are left out.
 *
 * @throws MessengerError `INVALID_MESSAGE` for a topic that is not there, and a payload that the schema refuses.
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
  // What is handed on of another message says nothing of this one's payload.
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
 * The payload of a message, as its schema makes it.
 *
 * @throws MessengerError `INVALID_MESSAGE` for what cannot be read: no JSON, an unknown or newer version, or
 *   what the schema refuses.
 */
export async function payloadOf(topics: Topics, message: Message): Promise<unknown> {
  const topic = topicOf(topics, message.topic ?? '');
  const what = `message ${message.id} of ${JSON.stringify(message.topic)}`;
  let payload: unknown;
  try {
    payload = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.payload));
  } catch (cause) {
    throw new MessengerError('INVALID_MESSAGE', `${what} is no JSON`, { cause });
  }
  const { version = 1, upcast } = topic;
  const stored = Number(message.metadata[VERSION] ?? 1);
  if (stored !== version) {
    if (!(stored >= 1 && stored < version) || upcast === undefined) {
      const remedy = stored >= 1 && stored < version ? 'give the topic an upcast' : 'update this consumer';
      throw new MessengerError(
        'INVALID_MESSAGE',
        `${what} is of version ${String(message.metadata[VERSION] ?? 1)}, and this is version ${String(version)}: ${remedy}`,
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
  throw new MessengerError('INVALID_MESSAGE', `${what} is not what its schema says: ${issuesText(result.issues)}`);
}

/** @throws MessengerError `INVALID_MESSAGE` where a handler would not get what is stored. */
async function assertKept(topic: Topic, name: string, parsed: unknown, json: string): Promise<void> {
  let again: unknown;
  try {
    again = await parsedBy(topic, JSON.parse(json), `what would be stored of ${JSON.stringify(name)}, read again,`);
  } catch (error) {
    // The schema says that it got null, or a string: why it did is of more use.
    const fault = changedBy(parsed, JSON.parse(json));
    if (fault?.kind === undefined) throw error;
    throw new MessengerError('INVALID_MESSAGE', `${toError(error).message} (${faultText(fault)}, which JSON has not)`, {
      cause: error,
    });
  }
  const fault = changedBy(parsed, again);
  if (fault === undefined) return;
  if (fault.kind !== undefined) {
    throw new MessengerError(
      'INVALID_MESSAGE',
      `the payload of ${JSON.stringify(name)} cannot be stored as JSON: ${faultText(fault)}, which would not come back. Send what JSON has, or let the schema take its JSON and make the same of it`,
    );
  }
  throw new MessengerError(
    'INVALID_MESSAGE',
    `the schema of ${JSON.stringify(name)} makes something else of what would be stored when it is read${fault.path === '' ? '' : `, at ${fault.path}`}: it must leave what it has made as it is`,
  );
}

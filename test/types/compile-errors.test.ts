import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { beforeAll, expect, it } from 'vitest';

// What somebody reads who makes a mistake, as the compiler says it: kept here, so that who changes a type sees what
// becomes of it. First what the compiler points at, then what it says, then what it adds.

const PRELUDE = `
import { sql } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { defineOutbox, defineTopics, subscribe, type Publisher, type Subscriber } from 'messenger-outbox';
import { drizzleBridge } from 'messenger-outbox/drizzle';
import { createInbox } from 'messenger-outbox/inbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { prismaBridge } from 'messenger-outbox/prisma';
import type pg from 'pg';
import { z } from 'zod';
import type { Prisma, PrismaClient } from '../../examples/prisma/generated/client.js';

declare const pool: pg.Pool;
declare const client: pg.PoolClient;
declare const db: NodePgDatabase;
declare const tx: Parameters<Parameters<typeof db.transaction>[0]>[0];
declare const prisma: PrismaClient;
declare const prismaTx: Prisma.TransactionClient;
declare const publisher: Publisher;
declare const subscriber: Subscriber;
declare const signal: AbortSignal;
const name = 'billing';

const topics = defineTopics({
  'order.created': { schema: z.object({ id: z.string(), total: z.number() }), key: (order) => order.id },
  'order.paid': { schema: z.object({ id: z.string() }) },
});
const store = new PostgresStore(pool);
const outbox = defineOutbox({ store, topics });
const drizzleStore = new PostgresStore(pool, { bridge: drizzleBridge(sql) });
const onDrizzle = defineOutbox({ store: drizzleStore, topics });
const onPrisma = defineOutbox({ store: new PostgresStore(pool, { bridge: prismaBridge() }), topics });

const Large = z.object({
  ${['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten']
    .map((field) => `${field}: z.string(), ${field}OrMore: z.array(z.object({ ${field}: z.number() })),`)
    .join('\n  ')}
});
const large = defineTopics({
  ${Array.from({ length: 30 }, (_, n) => `'topic.${n}': { schema: Large },`).join('\n  ')}
});
const onLarge = defineOutbox({ store, topics: large });
`;

const MISTAKES = [
  {
    mistake: 'nothing wrong',
    code: `await outbox.send(client, 'order.created', { id: '1', total: 1 });
await onDrizzle.send(tx, 'order.created', { id: '1', total: 1 });
await onPrisma.send(prismaTx, 'order.created', { id: '1', total: 1 });
await outbox.relay({ publisher, interval: 100 });
const inbox = createInbox({ store: drizzleStore, consumer: name, transaction: (fn) => db.transaction(fn) });
await subscribe(subscriber, { name, topics, signal, inbox, handlers: { 'order.paid': (_, { tx }) => tx.rollback() } });
await subscribe(subscriber, { name, topics, signal, handlers: { 'order.created': ({ total }) => total } });`,
    reads: ``,
  },
  {
    mistake: 'a wrong topic',
    code: `await outbox.send(client, 'order.creatd', { id: '1', total: 1 });`,
    reads: `at 'order.creatd'
Argument of type '"order.creatd"' is not assignable to parameter of type '"order.created" | "order.paid"'.`,
  },
  {
    mistake: 'a payload of a wrong type',
    code: `await outbox.send(client, 'order.created', { id: '1', total: '1' });`,
    reads: `at total
Type 'string' is not assignable to type 'number'.
+ The expected type comes from property 'total' which is declared here on type '{ id: string; total: number; }'`,
  },
  {
    mistake: 'a payload of a wrong type among many',
    code: `await outbox.sendAll(client, 'order.created', [{ id: '1', total: '1' }]);`,
    reads: `at total
Type 'string' is not assignable to type 'number'.
+ The expected type comes from property 'total' which is declared here on type '{ id: string; total: number; }'`,
  },
  {
    mistake: 'a payload that lacks a field',
    code: `await outbox.send(client, 'order.created', { id: '1' });`,
    reads: `at { id: '1' }
Argument of type '{ id: string; }' is not assignable to parameter of type '{ id: string; total: number; }'.
  Property 'total' is missing in type '{ id: string; }' but required in type '{ id: string; total: number; }'.
+ 'total' is declared here.`,
  },
  {
    mistake: 'a field too many',
    code: `await outbox.send(client, 'order.created', { id: '1', total: 1, extra: true });`,
    reads: `at extra
Object literal may only specify known properties, and 'extra' does not exist in type '{ id: string; total: number; }'.`,
  },
  {
    mistake: 'a payload with a field too few, of a schema with many',
    code: `await onLarge.send(client, 'topic.1', { one: '1' });`,
    reads: `at { one: '1' }
Argument of type '{ one: string; }' is not assignable to parameter of type '{ one: string; oneOrMore: { one: number; }[]; two: string; twoOrMore: { two: number; }[]; three: string; threeOrMore: { three: number; }[]; four: string; fourOrMore: { four: number; }[]; five: string; fiveOrMore: { five: number; }[]; ... 9 more ...; tenOrMore: { ...; }[]; }'.
  Type '{ one: string; }' is missing the following properties from type '{ one: string; oneOrMore: { one: number; }[]; two: string; twoOrMore: { two: number; }[]; three: string; threeOrMore: { three: number; }[]; four: string; fourOrMore: { four: number; }[]; five: string; fiveOrMore: { five: number; }[]; ... 9 more ...; tenOrMore: { ...; }[]; }': oneOrMore, two, twoOrMore, three, and 15 more.`,
  },
  {
    mistake: 'a wrong topic among many',
    code: `await onLarge.send(client, 'topic.99', {});`,
    reads: `at 'topic.99'
Argument of type '"topic.99"' is not assignable to parameter of type '"topic.0" | "topic.1" | "topic.2" | "topic.3" | "topic.4" | "topic.5" | "topic.6" | "topic.7" | "topic.8" | "topic.9" | "topic.10" | "topic.11" | "topic.12" | "topic.13" | "topic.14" | ... 14 more ... | "topic.29"'.`,
  },
  {
    mistake: 'no handle',
    code: `await outbox.send('order.created', { id: '1', total: 1 });`,
    reads: `at send
Expected 3-4 arguments, but got 2.
+ An argument for 'payload' was not provided.`,
  },
  {
    mistake: 'no handle, but options',
    code: `await outbox.send('order.created', { id: '1', total: 1 }, { key: '1' });`,
    reads: `at 'order.created'
Argument of type 'string' is not assignable to parameter of type 'TransactionHandle'.`,
  },
  {
    mistake: 'undefined as a handle',
    code: `await outbox.send(undefined, 'order.created', { id: '1', total: 1 });`,
    reads: `at undefined
Argument of type 'undefined' is not assignable to parameter of type 'TransactionHandle'.`,
  },
  {
    mistake: 'a pool',
    code: `await outbox.send(pool, 'order.created', { id: '1', total: 1 });`,
    reads: `at pool
Argument of type 'Pool' is not assignable to parameter of type 'TransactionHandle'.
  Property 'escapeIdentifier' is missing in type 'Pool' but required in type 'PgClient'.
+ 'escapeIdentifier' is declared here.`,
  },
  {
    mistake: 'a pool, where Drizzle is used',
    code: `await onDrizzle.send(pool, 'order.created', { id: '1', total: 1 });`,
    reads: `at pool
Argument of type 'Pool' is not assignable to parameter of type 'TransactionHandle | DrizzleTransaction'.
  Property 'escapeIdentifier' is missing in type 'Pool' but required in type 'PgClient'.
+ 'escapeIdentifier' is declared here.`,
  },
  {
    mistake: 'a Drizzle db',
    code: `await onDrizzle.send(db, 'order.created', { id: '1', total: 1 });`,
    reads: `at db
Argument of type 'NodePgDatabase<Record<string, never>>' is not assignable to parameter of type 'TransactionHandle | DrizzleTransaction'.
  Property 'rollback' is missing in type 'NodePgDatabase<Record<string, never>>' but required in type 'DrizzleTransaction'.
+ 'rollback' is declared here.`,
  },
  {
    mistake: 'a PrismaClient',
    code: `await onPrisma.send(prisma, 'order.created', { id: '1', total: 1 });`,
    reads: `at prisma
Argument of type 'PrismaClient' is not assignable to parameter of type 'TransactionHandle | PrismaTransaction'.
  Type 'PrismaClient<never, GlobalOmitConfig | undefined, DefaultArgs>' is not assignable to type 'PrismaTransaction'.
    Types of property '$connect' are incompatible.
      Type '() => Promise<void>' is not assignable to type 'never'.`,
  },
  {
    mistake: 'a transaction of a library without its bridge',
    code: `await outbox.send(prismaTx, 'order.created', { id: '1', total: 1 });`,
    reads: `at prismaTx
Argument of type 'TransactionClient' is not assignable to parameter of type 'TransactionHandle'.`,
  },
  {
    mistake: "a transaction of another library than the bridge's",
    code: `await onDrizzle.send(prismaTx, 'order.created', { id: '1', total: 1 });`,
    reads: `at prismaTx
Argument of type 'TransactionClient' is not assignable to parameter of type 'TransactionHandle | DrizzleTransaction'.`,
  },
  {
    mistake: 'a handler of a wrong type',
    code: `void subscribe(subscriber, { name, topics, signal, handlers: { 'order.created': (order: number) => order } });`,
    reads: `at 'order.created'
Type '(order: number) => number' is not assignable to type '(payload: { id: string; total: number; }, context: TopicContext<undefined>) => unknown'.
  Types of parameters 'order' and 'payload' are incompatible.
    Type '{ id: string; total: number; }' is not assignable to type 'number'.
+ The expected type comes from property 'order.created' which is declared here on type 'TopicHandlers<{ 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }, undefined>'`,
  },
  {
    mistake: 'a handler that reads a field that is not there',
    code: `void subscribe(subscriber, { name, topics, signal, handlers: { 'order.created': ({ sum }) => sum } });`,
    reads: `at sum
Property 'sum' does not exist on type '{ id: string; total: number; }'.`,
  },
  {
    mistake: 'a handler that is no function',
    code: `void subscribe(subscriber, { name, topics, signal, handlers: { 'order.paid': 'handlePaid' } });`,
    reads: `at 'order.paid'
Type 'string' is not assignable to type '(payload: { id: string; }, context: TopicContext<undefined>) => unknown'.
+ The expected type comes from property 'order.paid' which is declared here on type 'TopicHandlers<{ 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }, undefined>'`,
  },
  {
    mistake: 'a handler that writes through a transaction without an inbox',
    code: `const write = (to: pg.PoolClient) => to.query('');
void subscribe(subscriber, { name, topics, signal, handlers: { 'order.paid': (_, { tx }) => write(tx) } });`,
    reads: `at tx
Argument of type 'undefined' is not assignable to parameter of type 'PoolClient'.`,
  },
  {
    mistake: 'an inbox of a library without its bridge',
    code: `createInbox({ store, consumer: name, transaction: (fn) => prisma.$transaction(fn) });`,
    reads: `at prisma.$transaction(fn)
Type 'Promise<Handled<Omit<PrismaClient<never, GlobalOmitConfig | undefined, DefaultArgs>, "$connect" | "$disconnect" | "$on" | "$use" | "$extends">>>' is not assignable to type 'Promise<Handled<TransactionHandle> | undefined>'.
  Type 'Handled<Omit<PrismaClient<never, GlobalOmitConfig | undefined, DefaultArgs>, "$connect" | "$disconnect" | "$on" | "$use" | "$extends">>' is not assignable to type 'Handled<TransactionHandle>'.
    Type 'Omit<PrismaClient<never, GlobalOmitConfig | undefined, DefaultArgs>, "$connect" | "$disconnect" | "$on" | "$use" | "$extends">' is not assignable to type 'TransactionHandle'.
+ The expected type comes from the return type of this signature.`,
  },
  {
    mistake: 'an inbox through what commits every query by itself',
    code: `createInbox({ store: drizzleStore, consumer: name, transaction: (fn) => fn(db) });`,
    reads: `at fn(db)
Type 'Promise<Handled<NodePgDatabase<Record<string, never>>>>' is not assignable to type 'Promise<Handled<TransactionHandle | DrizzleTransaction> | undefined>'.
  Type 'Handled<NodePgDatabase<Record<string, never>>>' is not assignable to type 'Handled<TransactionHandle | DrizzleTransaction>'.
    Type 'NodePgDatabase<Record<string, never>>' is not assignable to type 'TransactionHandle | DrizzleTransaction'.
      Property 'rollback' is missing in type 'NodePgDatabase<Record<string, never>>' but required in type 'DrizzleTransaction'.
+ 'rollback' is declared here.
+ The expected type comes from the return type of this signature.`,
  },
  {
    mistake: 'an inbox of which the transaction does not return what its callback does',
    code: `createInbox({ store: drizzleStore, consumer: name, transaction: async (fn) => { await db.transaction(fn); } });`,
    reads: `at transaction
Type '(fn: <T>(transaction: T) => Promise<Handled<T>>) => Promise<void>' is not assignable to type '(work: <T>(transaction: T) => Promise<Handled<T>>) => Promise<Handled<TransactionHandle | DrizzleTransaction> | undefined>'.
  Type 'Promise<void>' is not assignable to type 'Promise<Handled<TransactionHandle | DrizzleTransaction> | undefined>'.
    Type 'void' is not assignable to type 'Handled<TransactionHandle | DrizzleTransaction> | undefined'.
+ The expected type comes from property 'transaction' which is declared here on type 'InboxOptions<TransactionHandle | DrizzleTransaction, TransactionHandle | DrizzleTransaction>'`,
  },
  {
    mistake: 'a pool in place of the store of an inbox',
    code: `createInbox({ store: pool, consumer: name, transaction: (fn) => db.transaction(fn) });`,
    reads: `at store
Type 'Pool' is missing the following properties from type 'InboxStore<unknown>': receive, deleteReceived
+ The expected type comes from property 'store' which is declared here on type 'InboxOptions<unknown, unknown>'`,
  },
  {
    mistake: 'an inbox without a consumer',
    code: `createInbox({ store: drizzleStore, transaction: (fn) => db.transaction(fn) });`,
    reads: `at { store: drizzleStore, transaction: (fn) => db.transaction(fn) }
Argument of type '{ store: PostgresStore<MessageInput, DrizzleTransaction>; transaction: (fn: <T>(transaction: T) => Promise<Handled<T>>) => Promise<...>; }' is not assignable to parameter of type 'InboxOptions<TransactionHandle | DrizzleTransaction, TransactionHandle | DrizzleTransaction>'.
  Property 'consumer' is missing in type '{ store: PostgresStore<MessageInput, DrizzleTransaction>; transaction: (fn: <T>(transaction: T) => Promise<Handled<T>>) => Promise<...>; }' but required in type 'InboxOptions<TransactionHandle | DrizzleTransaction, TransactionHandle | DrizzleTransaction>'.
+ 'consumer' is declared here.`,
  },
  {
    mistake: 'a handler that takes another transaction than its inbox gives',
    code: `const inbox = createInbox({ store: drizzleStore, consumer: name, transaction: (fn) => db.transaction(fn) });
const write = (to: pg.PoolClient) => to.query('');
void subscribe(subscriber, { name, topics, signal, inbox, handlers: { 'order.paid': (_, { tx }) => write(tx) } });`,
    reads: `at tx
Argument of type 'PgTransaction<NodePgQueryResultHKT, Record<string, never>, ExtractTablesWithRelations<Record<string, never>>>' is not assignable to parameter of type 'PoolClient'.
  Type 'PgTransaction<NodePgQueryResultHKT, Record<string, never>, ExtractTablesWithRelations<Record<string, never>>>' is missing the following properties from type 'PoolClient': release, port, host, ssl, and 28 more.`,
  },
  {
    mistake: 'a handler of an unknown topic',
    code: `void subscribe(subscriber, { name, topics, signal, handlers: { 'order.creatd': () => undefined } });`,
    reads: `at 'order.creatd'
Object literal may only specify known properties, and ''order.creatd'' does not exist in type 'TopicHandlers<{ 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }, undefined>'.
+ The expected type comes from property 'handlers' which is declared here on type 'TopicSubscription<{ 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }, undefined> & { ...; }'`,
  },
  {
    mistake: 'a handler of an unknown topic among many',
    code: `void subscribe(subscriber, { name, topics: large, signal, handlers: { 'topic.99': () => undefined } });`,
    reads: `at 'topic.99'
Object literal may only specify known properties, and ''topic.99'' does not exist in type 'TopicHandlers<{ 'topic.0': ZodObject<{ one: ZodString; oneOrMore: ZodArray<ZodObject<{ one: ZodNumber; }, $strip>>; two: ZodString; twoOrMore: ZodArray<...>; ... 15 more ...; tenOrMore: ZodArray<...>; }, $strip>; ... 28 more ...; 'topic.29': ZodObject<...>; }, undefined>'.
+ The expected type comes from property 'handlers' which is declared here on type 'TopicSubscription<{ 'topic.0': ZodObject<{ one: ZodString; oneOrMore: ZodArray<ZodObject<{ one: ZodNumber; }, $strip>>; two: ZodString; twoOrMore: ZodArray<...>; ... 15 more ...; tenOrMore: ZodArray<...>; }, $strip>; ... 28 more ...; 'topic.29': ZodObject<...>; }, undefined> & { ...; }'`,
  },
  {
    mistake: 'an unknown option of the outbox',
    code: `defineOutbox({ store, topics, publisher });`,
    reads: `at publisher
Object literal may only specify known properties, and 'publisher' does not exist in type 'OutboxOptions<TransactionHandle, { 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }>'.`,
  },
  {
    mistake: 'an unknown option of a message',
    code: `await outbox.send(client, 'order.paid', { id: '1' }, { keys: '1' });`,
    reads: `at keys
Object literal may only specify known properties, but 'keys' does not exist in type 'SendOptions'. Did you mean to write 'key'?`,
  },
  {
    mistake: 'an unknown option of a topic',
    code: `defineTopics({ 'order.paid': { schema: z.string(), keys: (id: string) => id } });`,
    reads: `at keys
Object literal may only specify known properties, but 'keys' does not exist in type 'Topic<ZodString>'. Did you mean to write 'key'?
+ The expected type comes from property 'order.paid' which is declared here on type 'Topics<{ 'order.paid': ZodString; }>'`,
  },
  {
    mistake: 'an unknown option of a relay',
    code: `await outbox.relay({ publisher, intervall: 100 });`,
    reads: `at intervall
Object literal may only specify known properties, but 'intervall' does not exist in type 'OutboxRelayOptions'. Did you mean to write 'interval'?`,
  },
  {
    mistake: 'a relay without a publisher',
    code: `await outbox.relay({ interval: 100 });`,
    reads: `at { interval: 100 }
Argument of type '{ interval: number; }' is not assignable to parameter of type 'OutboxRelayOptions'.
  Property 'publisher' is missing in type '{ interval: number; }' but required in type 'OutboxRelayOptions'.
+ 'publisher' is declared here.`,
  },
  {
    mistake: 'a topic without a schema',
    code: `defineTopics({ 'order.paid': { key: () => '1' } });`,
    reads: `at 'order.paid'
Property 'schema' is missing in type '{ key: () => string; }' but required in type 'Topic<StandardSchema<unknown, unknown>>'.
+ 'schema' is declared here.
+ The expected type comes from property 'order.paid' which is declared here on type 'Topics<Readonly<Record<string, StandardSchema<unknown, unknown>>>>'`,
  },
  {
    mistake: 'a topic without a schema, in an outbox',
    code: `defineOutbox({ store, topics: { 'order.created': { schema: z.string() }, 'order.paid': {} } });`,
    reads: `at 'order.paid'
Property 'schema' is missing in type '{}' but required in type 'Topic<StandardSchema<unknown, unknown>>'.
+ 'schema' is declared here.
+ The expected type comes from property 'order.paid' which is declared here on type 'Topics<Readonly<Record<string, StandardSchema<unknown, unknown>>>>'`,
  },
  {
    mistake: 'a schema in place of a topic',
    code: `defineTopics({ 'order.paid': z.object({ id: z.string() }) });`,
    reads: `at 'order.paid'
Property 'schema' is missing in type 'ZodObject<{ id: ZodString; }, $strip>' but required in type 'Topic<StandardSchema<unknown, unknown>>'.
+ 'schema' is declared here.
+ The expected type comes from property 'order.paid' which is declared here on type 'Topics<Readonly<Record<string, StandardSchema<unknown, unknown>>>>'`,
  },
  {
    mistake: 'a schema that is none',
    code: `defineTopics({ 'order.paid': { schema: { id: 'string' } } });`,
    reads: `at id
Object literal may only specify known properties, and 'id' does not exist in type 'StandardSchema<unknown, unknown>'.
+ The expected type comes from property 'schema' which is declared here on type 'Topic<StandardSchema<unknown, unknown>>'`,
  },
  {
    mistake: 'a key that is no text',
    code: `defineTopics({ 'order.paid': { schema: z.object({ id: z.number() }), key: (order) => order.id } });`,
    reads: `at key
Type '(this: void, order: { id: number; }) => number' is not assignable to type '(this: void, payload: { id: number; }) => string | undefined'.
  Type 'number' is not assignable to type 'string'.
+ The expected type comes from property 'key' which is declared here on type 'Topic<ZodObject<{ id: ZodNumber; }, $strip>>'`,
  },
  {
    mistake: 'a key of a field that is not there',
    code: `defineTopics({ 'order.paid': { schema: z.object({ id: z.string() }), key: (order) => order.di } });`,
    reads: `at di
Property 'di' does not exist on type '{ id: string; }'.`,
  },
  {
    mistake: 'a pool in place of a store',
    code: `defineOutbox({ store: pool, topics });`,
    reads: `at store
Type 'Pool' is missing the following properties from type 'WritableStore<unknown>': add, messages, published, deletePublishedByExpiration
+ The expected type comes from property 'store' which is declared here on type 'OutboxOptions<unknown, { 'order.created': ZodObject<{ id: ZodString; total: ZodNumber; }, $strip>; 'order.paid': ZodObject<{ id: ZodString; }, $strip>; }>'`,
  },
];

const root = fileURLToPath(new URL('../..', import.meta.url));
const fileOf = (index: number) => path.join(root, 'test/types', `mistake-${index}.ts`);
let program: ts.Program;

beforeAll(() => {
  const config = path.join(root, 'tsconfig.json');
  const { config: json } = ts.readConfigFile(config, (file) => ts.sys.readFile(file)) as { config: unknown };
  const { options } = ts.parseJsonConfigFileContent(json, ts.sys, root);
  const texts = new Map(MISTAKES.map(({ code }, index) => [fileOf(index), `${PRELUDE}${code}\n`]));
  const host = ts.createCompilerHost(options);
  program = ts.createProgram([...texts.keys()], options, {
    ...host,
    fileExists: (file) => texts.has(file) || host.fileExists(file),
    readFile: (file) => texts.get(file) ?? host.readFile(file),
    getSourceFile: (file, version) => {
      const text = texts.get(file);
      return text === undefined ? host.getSourceFile(file, version) : ts.createSourceFile(file, text, version);
    },
  });
});

const textOf = (message: string | ts.DiagnosticMessageChain) => ts.flattenDiagnosticMessageText(message, '\n');

function reads({ file, start, length, messageText, relatedInformation = [] }: ts.Diagnostic): string {
  const at = file?.text.slice(start, start! + length!);
  const more = relatedInformation.map((each) => `+ ${textOf(each.messageText)}`);
  return [`at ${String(at)}`, textOf(messageText), ...more].join('\n');
}

it.each(MISTAKES.map(({ mistake, ...rest }, index) => [mistake, { ...rest, index }] as const))(
  '%s',
  (_, { index, reads: expected }) => {
    const file = program.getSourceFile(fileOf(index));
    expect(file).toBeDefined();
    expect(ts.getPreEmitDiagnostics(program, file).map(reads).join('\n')).toBe(expected);
  },
);

it('is never longer than a screen, however many topics there are and however large they are', () => {
  const lengths = MISTAKES.map(({ reads }) => reads.length);
  expect(Math.max(...lengths)).toBeLessThan(800);
});

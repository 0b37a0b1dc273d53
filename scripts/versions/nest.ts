import assert from 'node:assert/strict';
import { NestFactory } from '@nestjs/core';
import { defineOutbox, type StandardSchema } from 'messenger-outbox';
import { MemoryStore } from 'messenger-outbox/memory';
import { OutboxModule } from 'messenger-outbox/nest';
import 'reflect-metadata';

const schema: StandardSchema<{ id: string }> = {
  '~standard': { version: 1, vendor: 'test', validate: (value) => ({ value: value as { id: string } }) },
};
const store = new MemoryStore();
const outbox = defineOutbox({ store, topics: { placed: { schema } } });

let reach: () => void = () => undefined;
let release: () => void = () => undefined;
const inFlight = new Promise<void>((resolve) => (reach = resolve));
const released = new Promise<void>((resolve) => (release = resolve));
const publisher = {
  async publish() {
    reach();
    await released;
  },
};

/** How many messages wait when a pool of the application is ended. */
const waiting: number[] = [];
const pool = () => ({
  provide: Symbol('pool'),
  useValue: { onModuleDestroy: async () => void waiting.push((await store.messages(10)).length) },
});
/** Nest knows modules by their class. */
// eslint-disable-next-line @typescript-eslint/no-extraneous-class
const moduleOf = (...rest: object[]) => Object.assign({ module: class {} }, ...rest) as never;

const outboxModule = OutboxModule.forRoot({ outbox, relay: { publisher, interval: 1 } });
const before = moduleOf({ providers: [pool()] });
const after = moduleOf({ providers: [pool()] });
const root = moduleOf({ providers: [pool()], imports: [before, outboxModule, after] });
// eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- its options are a class
const app = await NestFactory.createApplicationContext(root, { logger: false, abortOnError: false });
// @ts-expect-error -- a relay has no signal: it ends with its application
OutboxModule.forRoot({ outbox, relay: { publisher, signal: new AbortController().signal } });

await store.transaction((tx) => outbox.send(tx, 'placed', { id: '1' }));
await inFlight;
const closed = app.close();
for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
assert.deepEqual(waiting, []);
release();
await closed;
assert.deepEqual(waiting, [0, 0, 0]);

import 'reflect-metadata';
import { Scope, ShutdownSignal, type INestApplicationContext, type Provider, type Type } from '@nestjs/common';
import { DiscoveryService, NestFactory } from '@nestjs/core';
import { Test } from '@nestjs/testing';
import { describe, expect, expectTypeOf, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import {
  onMessageOf,
  OUTBOX,
  OUTBOX_HEALTH,
  OutboxModule,
  type OutboxHealth,
  type OutboxModuleOptions,
} from '../../src/frameworks/nest.js';
import { firstAndLast } from '../../src/frameworks/nest/order.js';
import { createInbox } from '../../src/inbox/index.js';
import {
  defineOutbox,
  newMessage,
  type ErrorLogger,
  type Inbox,
  type Message,
  type Publisher,
  type Subscriber,
  type TopicContext,
} from '../../src/index.js';
import type { MemoryTransaction } from '../../src/stores/memory/index.js';
import { memoryBroker } from '../../src/testing/index.js';
import { deferred, held, isOpen, shop } from './support.js';

/*
 * Decorators are applied by hand, as TypeScript's `experimentalDecorators` would: neither this project nor the test
 * runner compiles that syntax.
 */
type Decorator<Method> = (prototype: object, name: string, descriptor: TypedPropertyDescriptor<Method>) => void;

function decorate<Class, Name extends keyof Class & string>(
  { prototype }: Type<Class>,
  name: Name,
  decorator: Decorator<Class[Name]>,
): void {
  decorator(prototype as object, name, { value: (prototype as Class)[name] });
}

const silent: ErrorLogger = { error: () => undefined };
const topics = shop().outbox.topics;
const OnMessage = onMessageOf(topics);

interface Order {
  id: string;
}

/** A new class each time, with the messages that it handled and those that it holds on to. */
function ordersClass(options?: { subscriber?: string }) {
  class Orders {
    readonly handled: string[] = [];
    tx: unknown;
    going: Promise<void> = Promise.resolve();
    async created({ id }: Order, context: TopicContext<string>) {
      await this.going;
      this.tx = context.tx;
      this.handled.push(`${id} of ${String(context.message.topic)}`);
    }
  }
  decorate(Orders, 'created', OnMessage('order.created', options));
  return Orders;
}

/** Delivers the messages that it is given until the signal aborts, as a broker would. */
function broker() {
  const ended = deferred();
  let deliver: (message: Message) => Promise<void> = () => Promise.reject(new Error('nobody subscribed'));
  let fail: (error: Error) => void = () => undefined;
  const subscriber: Subscriber = {
    async subscribe({ handler }, { signal }) {
      const running: Promise<unknown>[] = [];
      deliver = async (message) => {
        if (signal.aborted) throw new Error('stopped');
        const handling = Promise.resolve(handler(message, { signal }));
        running.push(handling.catch(() => undefined));
        await handling;
      };
      await new Promise<void>((resolve, reject) => {
        fail = reject;
        signal.addEventListener('abort', () => {
          resolve();
        });
      });
      await Promise.all(running);
      ended.resolve();
    },
  };
  return {
    subscriber,
    ended: ended.promise,
    deliver: (id: string) => deliver(newMessage(JSON.stringify({ id }), { topic: 'order.created' })),
    fail: (error: Error) => {
      fail(error);
    },
  };
}

interface Root {
  imports: ReturnType<typeof OutboxModule.forRoot>[];
  providers?: Provider[];
}

/** Nest knows modules by their class. */
// eslint-disable-next-line @typescript-eslint/no-extraneous-class
const moduleClass = () => class {};

/** An application without decorators: its root module is an object. */
const start = (root: Root): Promise<INestApplicationContext> =>
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- its options are a class
  NestFactory.createApplicationContext({ module: moduleClass(), ...root }, { logger: false, abortOnError: false });

const healthOf = (app: INestApplicationContext) => app.get<OutboxHealth>(OUTBOX_HEALTH);

describe('OutboxModule', () => {
  it('injects the outbox everywhere, relays from bootstrap to shutdown, and finishes what is in flight', async () => {
    const { outbox, send, waiting } = shop();
    const { publisher, published, inFlight, release } = held();
    const feature = {
      module: moduleClass(),
      providers: [{ provide: 'FEATURE', inject: [OUTBOX], useFactory: (injected: unknown) => ({ injected }) }],
    };
    const app = await start({
      imports: [OutboxModule.forRoot({ outbox, relay: { publisher, interval: 1 } }), feature as never],
    });
    expect(app.get<{ injected: unknown }>('FEATURE').injected).toBe(outbox);
    expect(healthOf(app).now()).toMatchObject({ ok: true, status: 'running', failures: {} });
    expect(healthOf(app).indicator()).toEqual({ outbox: { status: 'up' } });
    await send('1');
    await inFlight;
    const closed = app.close();
    expect(await isOpen(closed)).toBe(true);
    release();
    await closed;
    expect(published).toHaveLength(1);
    expect(await waiting()).toBe(0);
    expect(healthOf(app).now()).toMatchObject({ ok: false, status: 'stopped' });
  });

  it('accepts options from a factory, and stops before the factory’s dependencies are destroyed', async () => {
    const { outbox, send } = shop();
    const { publisher, published, inFlight, release } = held();
    const seen: number[] = [];
    const database = {
      module: moduleClass(),
      providers: [{ provide: 'POOL', useValue: { onModuleDestroy: () => void seen.push(published.length) } }],
      exports: ['POOL'],
    };
    const module = OutboxModule.forRootAsync({
      // It finds no handlers, and no subscriber needs one.
      discovery: DiscoveryService,
      imports: [database],
      inject: ['POOL'],
      useFactory: async (pool: { onModuleDestroy?: unknown }) => {
        expect(pool.onModuleDestroy).toBeDefined();
        return { outbox, relay: { publisher, interval: 1 } };
      },
    });
    const testing = await Test.createTestingModule({ imports: [module] }).compile();
    await testing.init();
    await send('1');
    await inFlight;
    const closed = testing.close();
    expect(await isOpen(closed)).toBe(true);
    expect(seen).toEqual([]);
    release();
    await closed;
    expect(seen).toEqual([1]);
  });

  describe('stops before any onModuleDestroy of the application', () => {
    /** A module that ends what the relay needs, and reports what was settled by then. */
    const database = (seen: unknown[], waiting: () => Promise<number>) => ({
      module: moduleClass(),
      providers: [
        {
          provide: Symbol('pool'),
          useValue: { onModuleDestroy: async () => void seen.push(['waiting', await waiting()]) },
        },
      ],
    });
    type Wiring = (outbox: never, database: never) => { imports?: never[]; providers?: Provider[] };
    const within = (module: never): never => ({ module: moduleClass(), imports: [module] }) as never;
    const wirings: readonly (readonly [string, Wiring])[] = [
      ['of a module that is imported after it', (outbox, pool) => ({ imports: [outbox, pool] })],
      ['of a module that is imported before it', (outbox, pool) => ({ imports: [pool, outbox] })],
      ['of the root module', (outbox, pool) => ({ imports: [outbox], ...(pool as { providers: Provider[] }) })],
      ['of a module above the one that imports it', (outbox, pool) => ({ imports: [within(within(outbox)), pool] })],
      [
        'of a global module that is imported after it',
        (outbox, pool) => ({ imports: [outbox, { ...(pool as object), global: true } as never] }),
      ],
      [
        'of a module that is also imported deeper down',
        (outbox, pool) => ({ imports: [pool, outbox, within(within(pool))] }),
      ],
      [
        'where it is made global itself',
        (outbox, pool) => ({ imports: [{ ...(outbox as object), global: true } as never, pool] }),
      ],
    ];
    it.each(wirings)('%s', async (_, wire) => {
      const { outbox, send, waiting } = shop();
      const { publisher, inFlight, release } = held();
      const { subscriber, deliver, ended } = broker();
      const Orders = ordersClass();
      const seen: unknown[] = [];
      const module = OutboxModule.forRoot({
        outbox,
        relay: { publisher, interval: 1 },
        subscribers: [{ name: 'billing', subscriber }],
        discovery: DiscoveryService,
      });
      const { imports = [], providers = [] } = wire(module as never, database(seen, waiting) as never);
      const app = await start({ imports, providers: [...providers, Orders] });
      const going = deferred();
      app.get(Orders).going = going.promise;
      await send('1');
      await inFlight;
      void deliver('2').then(() => seen.push('handled'));
      const closed = app.close();
      expect(await isOpen(closed)).toBe(true);
      going.resolve();
      await ended;
      expect(await isOpen(closed)).toBe(true);
      release();
      await closed;
      expect(seen).toEqual(['handled', ['waiting', 0]]);
    });

    it('on a signal too', async () => {
      const { outbox, send, waiting } = shop();
      const { publisher, inFlight, release } = held();
      const seen: unknown[] = [];
      const app = await start({
        imports: [
          OutboxModule.forRoot({ outbox, relay: { publisher, interval: 1 } }),
          database(seen, waiting) as never,
        ],
      });
      const before = process.listeners('SIGUSR2');
      app.enableShutdownHooks([ShutdownSignal.SIGUSR2]);
      // The signal itself would end the test's process, because Nest sends it again after it has shut down.
      const killed = deferred();
      const kill = vi.spyOn(process, 'kill').mockImplementation(() => {
        killed.resolve();
        return true;
      });
      onTestFinished(() => {
        kill.mockRestore();
      });
      await send('1');
      await inFlight;
      for (const listener of process.listeners('SIGUSR2')) {
        if (!before.includes(listener)) listener('SIGUSR2');
      }
      expect(await isOpen(killed.promise)).toBe(true);
      expect(seen).toEqual([]);
      release();
      await killed.promise;
      expect(seen).toEqual([['waiting', 0]]);
    });

    it('if two modules have a relay each', async () => {
      const shops = [shop(), shop()] as const;
      const seen: unknown[] = [];
      const relays = shops.map(() => held());
      const modules = shops.map(({ outbox }, i) =>
        OutboxModule.forRoot({ outbox, relay: { publisher: relays[i]?.publisher as Publisher, interval: 1 } }),
      );
      const [first, second] = shops;
      const all = async () => (await first.waiting()) + (await second.waiting());
      const app = await start({ imports: [modules[0], database(seen, all), modules[1]] as never[] });
      for (const { send } of shops) await send('1');
      for (const { inFlight } of relays) await inFlight;
      const closed = app.close();
      relays[1]?.release();
      expect(await isOpen(closed)).toBe(true);
      expect(seen).toEqual([]);
      relays[0]?.release();
      await closed;
      expect(seen).toEqual([['waiting', 0]]);
    });
  });

  it('starts after everything else of the application has started', async () => {
    const { outbox } = shop();
    const seen: string[] = [];
    const { subscriber } = broker();
    const telling: Subscriber = {
      subscribe: (...given) => {
        seen.push('subscriber');
        return subscriber.subscribe(...given);
      },
    };
    const subscribers = [{ name: 'billing', subscriber: telling }];
    const app = await start({
      imports: [OutboxModule.forRoot({ outbox, subscribers, discovery: DiscoveryService })],
      providers: [
        ordersClass(),
        { provide: 'ROOT', useValue: { onApplicationBootstrap: () => void seen.push('root') } },
      ],
    });
    expect(seen).toEqual(['root', 'subscriber']);
    await app.close();
  });

  it('refuses to start if Nest is not the copy that it knows', () => {
    expect(() => {
      firstAndLast(undefined, Symbol('stop'), Symbol('hooks'));
    }).toThrow(/two copies of @nestjs\/core/);
  });

  it('fails to start if the relay cannot start', async () => {
    const { outbox, lose, errorLogger } = shop();
    lose();
    const relay = { publisher: held().publisher, errorLogger };
    await expect(start({ imports: [OutboxModule.forRoot({ outbox, relay })] })).rejects.toMatchObject({
      code: 'FATAL',
    });
  });

  it('reports a relay that has ended, and still closes', async () => {
    const { outbox, lose, errors, errorLogger } = shop();
    const relay = { publisher: held().publisher, errorLogger, interval: 1, storeOutageLimit: 0 };
    const app = await start({ imports: [OutboxModule.forRoot({ outbox, relay })] });
    lose();
    await expect.poll(() => errors).toEqual([expect.objectContaining({ code: 'FATAL' })]);
    expect(healthOf(app).now()).toMatchObject({ ok: false, status: 'failed', error: { code: 'FATAL' } });
    expect(healthOf(app).indicator('relay')).toEqual({ relay: { status: 'down' } });
    await app.close();
  });
});

describe('OnMessage', () => {
  it('lets a provider handle a subscriber’s messages, and shutdown waits for the provider', async () => {
    const { outbox } = shop();
    const { subscriber, deliver, ended } = broker();
    const Orders = ordersClass();
    const inbox: Inbox<string> = {
      once: async (message, work) => {
        await work(`tx of ${message.id}`);
        return true;
      },
    };
    const app = await start({
      imports: [
        OutboxModule.forRoot({
          outbox,
          subscribers: [{ name: 'billing', subscriber, inbox }],
          discovery: DiscoveryService,
        }),
      ],
      providers: [Orders, { provide: 'ALIAS', useExisting: Orders }],
    });
    const orders = app.get(Orders);
    await deliver('1');
    expect(orders.handled).toEqual(['1 of order.created']);
    expect(orders.tx).toMatch(/^tx of /);
    const going = deferred();
    orders.going = going.promise;
    const last = deliver('2');
    const closed = app.close();
    expect(await isOpen(closed)).toBe(true);
    going.resolve();
    await Promise.all([last, closed, ended]);
    expect(orders.handled).toHaveLength(2);
  });

  it('handles messages of the subscriber that it names, even if it is inherited', async () => {
    const { outbox } = shop();
    const [billing, shipping] = [broker(), broker()];
    const Bills = ordersClass({ subscriber: 'billing' });
    class Ships extends ordersClass({ subscriber: 'shipping' }) {}
    const subscribers = [
      { name: 'billing', subscriber: billing.subscriber },
      { name: 'shipping', subscriber: shipping.subscriber },
    ];
    const app = await start({
      imports: [OutboxModule.forRoot({ outbox, subscribers, discovery: DiscoveryService })],
      providers: [Bills, Ships],
    });
    await billing.deliver('1');
    await shipping.deliver('2');
    expect(app.get(Bills).handled).toEqual(['1 of order.created']);
    expect(app.get(Ships).handled).toEqual(['2 of order.created']);
    await app.close();
  });

  it('calls a method for each topic of its decorators, and an override only for its own topics', async () => {
    const schema = z.object({ id: z.string() });
    const outbox = defineOutbox({
      store: shop().store,
      topics: { placed: { schema }, paid: { schema }, old: { schema } },
    });
    const On = onMessageOf(outbox.topics);
    class Base {
      readonly handled: string[] = [];
      changed({ id }: Order, { message: { topic } }: TopicContext<undefined>) {
        this.handled.push(`${id} of ${String(topic)}`);
      }
    }
    class Orders extends Base {
      override changed(order: Order, context: TopicContext<undefined>) {
        super.changed(order, context);
      }
    }
    decorate(Base, 'changed', On('old'));
    decorate(Orders, 'changed', On('placed'));
    decorate(Orders, 'changed', On('paid'));
    const subscriber = memoryBroker({ maxDeliveries: 1, errorLogger: silent });
    const subscribers = [{ name: 'billing', subscriber }];
    const app = await start({
      imports: [OutboxModule.forRoot({ outbox, subscribers, discovery: DiscoveryService })],
      providers: [Orders],
    });
    for (const topic of ['placed', 'paid', 'old']) await subscriber.publish(newMessage('{"id":"1"}', { topic }));
    await subscriber.idle();
    expect(app.get(Orders).handled).toEqual(['1 of placed', '1 of paid']);
    expect(subscriber.dead.map(({ message }) => message.topic)).toEqual(['old']);
    await app.close();
  });

  it('has its effect once with an inbox, however often a message is delivered', async () => {
    const { store, outbox } = shop();
    const inbox = createInbox({ store, consumer: 'billing', transaction: (fn) => store.transaction(fn) });
    const once = vi.spyOn(inbox, 'once');
    class Billing {
      calls = 0;
      async bill({ id }: Order, { tx }: TopicContext<MemoryTransaction>) {
        await store.add(tx, `bill of ${id}`);
        if (++this.calls === 1) throw new Error('the first time fails');
      }
    }
    decorate(Billing, 'bill', OnMessage('order.created'));
    const subscriber = memoryBroker({ duplicates: 2 });
    const subscribers = [{ name: 'billing', subscriber, inbox }];
    const app = await start({
      imports: [OutboxModule.forRoot({ outbox, subscribers, discovery: DiscoveryService })],
      providers: [Billing],
    });
    await subscriber.publish(newMessage('{"id":"1"}', { topic: 'order.created' }));
    await subscriber.idle();
    expect(store.all()).toHaveLength(1);
    // One delivery failed after its effect, one succeeded, and two came after that.
    expect([app.get(Billing).calls, once.mock.calls.length]).toEqual([2, 4]);
    expect(subscriber.dead).toEqual([]);
    await app.close();
  });

  const failure = new Error('the queue is gone');
  it.each<[string, (errorLogger: ErrorLogger) => Pick<OutboxModuleOptions, 'relay' | 'errorLogger'>]>([
    ['its errorLogger', (errorLogger) => ({ errorLogger })],
    [
      'that rather than the relay’s',
      (errorLogger) => ({ errorLogger, relay: { publisher: held().publisher, errorLogger: silent } }),
    ],
    ['the relay’s', (errorLogger) => ({ relay: { publisher: held().publisher, errorLogger } })],
    [
      'the console',
      (errorLogger) => {
        const spy = vi.spyOn(console, 'error').mockImplementation((line: string) => {
          errorLogger.error(line.includes(failure.message) ? failure : new Error(line));
        });
        onTestFinished(() => {
          spy.mockRestore();
        });
        return {};
      },
    ],
  ])('tells %s of a subscriber that failed', async (_, loggers) => {
    const { outbox, errors, errorLogger } = shop();
    const { subscriber, fail } = broker();
    const options = { ...loggers(errorLogger), outbox, subscribers: [{ name: 'billing', subscriber }] };
    const app = await start({
      imports: [OutboxModule.forRoot({ ...options, discovery: DiscoveryService })],
      providers: [ordersClass()],
    });
    fail(failure);
    await expect.poll(() => errors).toEqual([failure]);
    const status = options.relay ? 'running' : 'none';
    expect(healthOf(app).now()).toMatchObject({ ok: false, status, failures: { billing: failure } });
    await app.close();
  });

  it('refuses an errorLogger without the method error', async () => {
    const options = { outbox: shop().outbox, errorLogger: null as never };
    await expect(start({ imports: [OutboxModule.forRoot(options)] })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: 'errorLogger must be an object with an error method, got null',
    });
  });

  it.each([
    ['needs discovery', /need the discovery option/, [ordersClass()], ['billing'], undefined],
    [
      'needs subscribers',
      /Orders.created handles messages, but the module has no subscribers: give the module subscribers/,
      [ordersClass()],
      [],
    ],
    ['needs a handler for each subscriber', /no OnMessage method handles messages from billing/, [], ['billing']],
    [
      'names one of many subscribers',
      /Orders.created must name one of the subscribers a, b/,
      [ordersClass()],
      ['a', 'b'],
    ],
    ['needs names that differ', /two subscribers have the name x: each/, [ordersClass()], ['x', 'x']],
    ['needs them although one is named', /two subscribers/, [ordersClass({ subscriber: 'x' })], ['x', 'a', 'x']],
    ['names one that is there', /must name/, [ordersClass({ subscriber: 'x' })], ['billing']],
    [
      'handles a topic once',
      /Orders.created and Orders.created both handle order.created/,
      [ordersClass(), ordersClass()],
      ['a'],
    ],
    ['is of one instance', /Orders handles messages, so it can be neither/, [{ scope: Scope.TRANSIENT }], ['a']],
    ['is of no request', /Orders handles messages, so it can be neither/, [{ scope: Scope.REQUEST }], ['a']],
  ] as const)('%s', async (_, message, classes, names, ...discovery) => {
    const { outbox } = shop();
    let relays = 0;
    const watched = { ...outbox, relay: () => Promise.reject(new Error(`relay ${String(++relays)}`)) };
    const providers = classes.map((each): Provider => {
      if (typeof each === 'function') return each;
      const Orders = ordersClass();
      return { provide: Orders, useClass: Orders, scope: each.scope };
    });
    const subscribers = names.map((name) => ({ name, subscriber: broker().subscriber }));
    const wiring = discovery.length === 0 ? { discovery: DiscoveryService } : {};
    const received = subscribers.length > 0 ? { subscribers } : {};
    const options = { outbox: watched, relay: { publisher: held().publisher }, ...received, ...wiring };
    const starting = start({ imports: [OutboxModule.forRoot(options)], providers });
    await expect(starting).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message) as string,
    });
    expect(relays).toBe(0);
  });

  it('refuses a static method, because no provider has it', () => {
    // eslint-disable-next-line @typescript-eslint/no-extraneous-class
    class Orders {
      static created({ id }: Order) {
        return id;
      }
    }
    const descriptor = { value: (order: Order) => Orders.created(order) };
    expect(() => {
      OnMessage('order.created')(Orders, 'created', descriptor);
    }).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTION',
        message: expect.stringContaining('Orders.created is static') as string,
      }) as Error,
    );
  });

  it('is typed by its topic', () => {
    class Wrong {
      handle(order: { total: number }) {
        return order.total;
      }
    }
    // @ts-expect-error -- an order has no total
    decorate(Wrong, 'handle', OnMessage('order.created'));
    // @ts-expect-error -- there is no such topic
    expect(() => OnMessage('order.creatd')).toThrow('there is no topic order.creatd');
    expectTypeOf(OnMessage).parameter(0).toEqualTypeOf<'order.created'>();
  });
});

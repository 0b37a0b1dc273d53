import { textOf } from '../../../core/util/error-text.js';
import { MessengerError, toError } from '../../../core/errors.js';
import type { ErrorLogger } from '../../../core/contracts/logger.js';
import type { Message } from '../../../core/contracts/message.js';
import { backoff } from '../../../core/publish/retry-policy.js';
import type { Subscription } from '../../../core/contracts/subscriber.js';
import { sleep } from '../../../core/util/async.js';
import { decodeDelivery, type Delivery } from './decode.js';
import { receiptsOf, type ReceiptCalls, type Receipts } from './receipts.js';

/** The checked settings of a subscriber. */
export interface SessionSettings {
  readonly concurrency: number;
  readonly visibilitySeconds: number;
  /** If `undefined`, a failed message stays hidden until its visibility timeout ends. */
  readonly retrySeconds: number | undefined;
  readonly stopTimeout: number;
  readonly messageIdKey: string;
  /** Whether the messages in a group are handled one at a time, in order. */
  readonly ordered: boolean;
  readonly logger: ErrorLogger;
}

/** A delivery, with the receipt for deleting it or changing its visibility. */
export interface ReceivedDelivery extends Delivery {
  readonly ReceiptHandle?: string | undefined;
}

/** The calls that a session makes. */
export interface SessionCalls extends ReceiptCalls {
  receive(most: number, signal: AbortSignal): Promise<readonly ReceivedDelivery[]>;
}

/** A message that was received and has been neither deleted nor given back to the queue. */
interface InHand {
  readonly message: Message;
  readonly receipt: string;
  readonly group: string | undefined;
}

/** The largest number of messages that one receive asks for. This is SQS's limit. */
const MAX_RECEIVED = 10;
const RECEIVE_BACKOFF = { minDelay: 100, maxDelay: 30_000 };
/** How many milliseconds handlers have to end after their signal was aborted. */
const ABORT_GRACE = 1_000;

/** Receives and handles messages until the signal aborts, and then stops gracefully. Never rejects. */
export async function receiveAndHandle(
  subscription: Subscription,
  signal: AbortSignal,
  settings: SessionSettings,
  calls: SessionCalls,
): Promise<void> {
  const session = new Session(subscription, signal, settings, calls);
  await session.receive();
  await session.stop();
}

class Session {
  readonly #subscription: Subscription;
  readonly #signal: AbortSignal;
  readonly #settings: SessionSettings;
  readonly #calls: SessionCalls;
  readonly #receipts: Receipts;
  readonly #handlers = new AbortController();
  readonly #inHand = new Set<InHand>();
  /** For each group, the messages that are waiting behind the message that is being handled. */
  readonly #groups = new Map<string, InHand[]>();
  readonly #work = new Set<Promise<void>>();
  readonly #heartbeat: NodeJS.Timeout;
  #extending: Promise<unknown> = Promise.resolve();
  #freed: () => void = () => undefined;

  constructor(subscription: Subscription, signal: AbortSignal, settings: SessionSettings, calls: SessionCalls) {
    this.#subscription = subscription;
    this.#signal = signal;
    this.#settings = settings;
    this.#calls = calls;
    this.#receipts = receiptsOf(calls, Math.ceil(settings.concurrency / MAX_RECEIVED), settings.logger);
    this.#heartbeat = setInterval(() => {
      this.#extend();
    }, settings.visibilitySeconds * 500);
  }

  async receive(): Promise<void> {
    let failures = 0;
    while (!this.#signal.aborted) {
      const room = this.#settings.concurrency - this.#inHand.size;
      if (room <= 0) {
        await this.#roomOrAbort();
        continue;
      }
      try {
        const deliveries = await this.#calls.receive(Math.min(room, MAX_RECEIVED), this.#signal);
        failures = 0;
        for (const delivery of deliveries) this.#accept(delivery);
      } catch (thrown) {
        // The receive was aborted by the signal, which is not a failure.
        if (this.#aborted()) return;
        failures += 1;
        this.#log('could not receive', thrown);
        await sleep(backoff(failures, RECEIVE_BACKOFF), this.#signal);
      }
    }
  }

  /**
   * Gives back messages that were not started, and waits for running handlers. After `stopTimeout`, aborts the
   * handlers.
   */
  async stop(): Promise<void> {
    for (const waiting of this.#groups.values()) this.#track(this.#release(waiting.splice(0)));
    if (!(await this.#idleWithin(this.#settings.stopTimeout))) {
      this.#handlers.abort(
        new MessengerError('TIMEOUT', 'the subscriber stopped, and the handler did not end in time'),
      );
      if (!(await this.#idleWithin(ABORT_GRACE))) {
        const ids = [...this.#inHand].map(({ message }) => message.id).join(', ');
        this.#settings.logger.error(
          new MessengerError(
            'TIMEOUT',
            `${this.#name()}: stopped while handlers were still running, so these messages will be delivered again: ${ids}`,
          ),
        );
      }
    }
    clearInterval(this.#heartbeat);
    await Promise.race([this.#extending, sleep(ABORT_GRACE)]);
  }

  #accept(delivery: ReceivedDelivery): void {
    const item: InHand = {
      message: decodeDelivery(delivery, this.#settings.messageIdKey),
      receipt: delivery.ReceiptHandle ?? '',
      group: this.#settings.ordered ? delivery.Attributes?.['MessageGroupId'] : undefined,
    };
    this.#inHand.add(item);
    if (this.#aborted()) {
      this.#track(this.#release([item]));
      return;
    }
    const waiting = item.group === undefined ? undefined : this.#groups.get(item.group);
    if (waiting === undefined) this.#track(this.#runGroup(item));
    else waiting.push(item);
  }

  /** Handles a message and then, one after the other, the messages in its group that arrive meanwhile. */
  async #runGroup(first: InHand): Promise<void> {
    const waiting: InHand[] = [];
    if (first.group !== undefined) this.#groups.set(first.group, waiting);
    for (let item: InHand | undefined = first; item !== undefined; item = waiting.shift()) {
      if (await this.#handle(item)) continue;
      // The waiting messages must go back before the failed message. Otherwise they could be delivered before it.
      await this.#release(waiting.splice(0));
      await this.#giveBack(item);
    }
    if (first.group !== undefined) this.#groups.delete(first.group);
  }

  /** Handles a message, and returns whether the handler succeeded. If so, the message is deleted. */
  async #handle(item: InHand): Promise<boolean> {
    try {
      await this.#subscription.handler(item.message, { signal: this.#handlers.signal });
    } catch (thrown) {
      this.#log(`message ${item.message.id} failed`, thrown);
      return false;
    }
    await this.#receipts.remove(item.receipt, item.message.id);
    this.#drop(item);
    return true;
  }

  async #giveBack(item: InHand): Promise<void> {
    const { retrySeconds } = this.#settings;
    if (retrySeconds === undefined) this.#drop(item);
    else await this.#hideFor(item, retrySeconds);
  }

  async #release(items: readonly InHand[]): Promise<void> {
    await Promise.all(items.map((item) => this.#hideFor(item, 0)));
  }

  async #hideFor(item: InHand, seconds: number): Promise<void> {
    this.#drop(item);
    // Wait for an extension in flight, because it would override this change.
    await this.#extending;
    const error = await this.#receipts.changeVisibility(item.receipt, seconds);
    if (error !== undefined) this.#log(`message ${item.message.id} could not be returned to the queue early`, error);
  }

  #extend(): void {
    const { visibilitySeconds } = this.#settings;
    this.#extending = Promise.all(
      [...this.#inHand].map(async (item) => {
        const error = await this.#receipts.changeVisibility(item.receipt, visibilitySeconds);
        // A message that was deleted meanwhile cannot be extended, and does not need to be.
        if (error !== undefined && this.#inHand.has(item)) {
          this.#log(`message ${item.message.id} may be delivered again while it is being handled`, error);
        }
      }),
    );
  }

  #drop(item: InHand): void {
    this.#inHand.delete(item);
    this.#freed();
  }

  async #roomOrAbort(): Promise<void> {
    await new Promise<void>((resolve) => {
      const end = (): void => {
        this.#signal.removeEventListener('abort', end);
        resolve();
      };
      this.#signal.addEventListener('abort', end);
      this.#freed = end;
    });
  }

  #track(work: Promise<void>): void {
    const tracked: Promise<void> = work
      .catch((thrown: unknown) => {
        this.#log('unexpected error', thrown);
      })
      .then(() => {
        this.#work.delete(tracked);
      });
    this.#work.add(tracked);
  }

  async #idleWithin(milliseconds: number): Promise<boolean> {
    const idle = new AbortController();
    const done = Promise.all(this.#work).then(() => {
      idle.abort();
    });
    await Promise.race([done, sleep(milliseconds, idle.signal)]);
    return idle.signal.aborted;
  }

  #aborted(): boolean {
    return this.#signal.aborted;
  }

  #log(what: string, thrown: unknown): void {
    const cause = toError(thrown);
    this.#settings.logger.error(new Error(`${this.#name()}: ${what}: ${textOf(cause)}`, { cause }));
  }

  #name(): string {
    return `subscription ${this.#subscription.name}`;
  }
}

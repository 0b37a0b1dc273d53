import { isHeldUp, isUnsent } from './calls.js';
import { textOf } from '../util/error-text.js';
import { PublishError } from '../errors.js';
import { signatureOf } from '../util/error-signature.js';
import type { Pass } from './circuit-breaker.js';
import type { Page, ToPark } from '../contracts/feed.js';
import type { Message } from '../contracts/message.js';
import { Outstanding } from './pace.js';
import type { Late, PageOutcome, PublishPageOptions } from './types.js';
import type { PublishResult } from '../contracts/publisher.js';
import { backoff } from './retry-policy.js';
import type { Answered, Failure, Outage } from './outage-detector.js';

/** The outcome of one batch. */
interface Taken {
  /** The indexes of the page's messages that still have to be sent, in order. */
  readonly pending: readonly number[];
  readonly acknowledged: boolean;
  readonly outage: Outage | undefined;
}

/**
 * Collects the broker's answers for the messages in one page, and decides what happens to each message. A `place` is
 * the index of a message in the page.
 */
export class Outcomes {
  readonly #page: Page;
  readonly #options: PublishPageOptions;
  readonly #toPark: ToPark[] = [];
  /** Keys for which this page has parked a message. */
  readonly #blocked = new Set<string>();
  readonly #late: Late[] = [];
  #acknowledged = 0;
  /** How many batches in a row ended with a suspected broker outage. */
  #rounds = 0;

  constructor(page: Page, options: PublishPageOptions) {
    this.#page = page;
    this.#options = options;
  }

  hasParked(key: string): boolean {
    return this.#blocked.has(key);
  }

  /** Parks a message behind an earlier message with the same key. */
  behind(place: number): void {
    this.#park(place, {});
  }

  /** Records the failure of a message that cannot be passed to any publisher. It says nothing about the broker. */
  unreadable(place: number, error: Error): void {
    this.#fail(place, { error, kind: 'permanent', signature: '' });
  }

  outcome(untried: readonly number[]): PageOutcome {
    return {
      acknowledged: this.#acknowledged,
      toPark: this.#toPark,
      untried: untried.map((place) => this.#toParkOf(place, {})),
      late: this.#late,
    };
  }

  /**
   * Parks the messages in a batch that have no answer yet. Their answers arrive later: see `Late`.
   *
   * @returns the rest of the batch, with its results.
   */
  postpone(
    batch: readonly number[],
    results: readonly PublishResult[],
    { sentAt, pass }: { readonly sentAt: number; readonly pass: Pass },
  ): { readonly batch: readonly number[]; readonly results: readonly PublishResult[] } {
    const errorOf = (result: PublishResult | undefined) => (result?.acknowledged === false ? result.error : undefined);
    if (!results.some((result) => errorOf(result) instanceof Outstanding)) return { batch, results };
    // Count the time from now, because a call may have begun just now, even if its page was sent some time ago.
    const retryIn = this.#options.pace?.timeout ?? 0;
    const calls = new Map<Promise<readonly PublishResult[]>, { places: number[]; within: number[] }>();
    const answered = batch.filter((place, i) => {
      const error = errorOf(results[i]);
      if (!(error instanceof Outstanding)) return true;
      if (error.call === undefined) {
        this.behind(place);
        return false;
      }
      this.#park(place, { outstanding: true, retryIn });
      const call = calls.get(error.call.results) ?? { places: [], within: [] };
      call.places.push(place);
      call.within.push(error.call.place);
      calls.set(error.call.results, call);
      return false;
    });
    for (const [whole, { places, within }] of calls) {
      const page = {
        messages: places.map((place) => this.#message(place)),
        attempts: places.map((place) => this.#attempts(place)),
      };
      const its = whole.then((all) => within.map((place) => all[place] as PublishResult));
      this.#late.push({ page, results: its, sentAt, pass });
    }
    const kept = new Set(answered);
    return { batch: answered, results: results.filter((_, i) => kept.has(batch[i] as number)) };
  }

  /**
   * Records every result of a batch. `rest` contains the indexes of the remaining messages that were not in the batch.
   */
  take(batch: readonly number[], rest: readonly number[], results: readonly PublishResult[], duration: number): Taken {
    if (batch.length === 0) return { pending: rest, acknowledged: false, outage: undefined };
    const { outageDetector, circuit, onPublished } = this.#options;
    const published = batch.filter((_, i) => results[i]?.acknowledged === true);
    const acknowledged = published.length > 0;
    const messages = () => published.map((place) => this.#message(place));
    this.#acknowledged += published.length;
    if (acknowledged) onPublished?.(messages(), duration);
    if (published.length === batch.length) {
      outageDetector.acknowledged(messages);
      this.#rounds = 0;
      return { pending: rest, acknowledged, outage: undefined };
    }
    this.#tellCut(results);
    const answers = batch.map((place, i) => this.#answered(place, results[i] as PublishResult));
    const outage = outageDetector.judge(
      answers.flatMap((answered) => answered ?? []),
      circuit.signature,
    );
    if (acknowledged) outageDetector.acknowledged(messages);
    const again = this.#settle(
      batch,
      answers,
      outage,
      this.#isEnough(
        outage,
        acknowledged,
        results.some((result) => !result.acknowledged && isHeldUp(result.error)),
      ),
    );
    const pending = [...again, ...rest].sort((a, b) => a - b);
    return { pending, acknowledged, outage };
  }

  /** Whether messages with similar failures have been tried often enough. */
  #isEnough(outage: Outage | undefined, acknowledged: boolean, holdsUpOthers: boolean): boolean {
    if (outage?.certain !== false) {
      this.#rounds = 0;
      return false;
    }
    const { outageDetector, probes } = this.#options;
    const fromLog = this.#page.attempts === undefined;
    this.#rounds += 1;
    // Messages that were parked before have already been tried often enough, and can stay parked.
    if (this.#rounds <= (fromLog && !outageDetector.exhausted ? Math.min(probes, holdsUpOthers ? 1 : probes) : 0))
      return false;
    if (fromLog && !acknowledged) outageDetector.exhausted = true;
    return true;
  }

  /** Records the failures, and returns the indexes of the messages to send again. */
  #settle(
    batch: readonly number[],
    answers: readonly (Answered | undefined)[],
    outage: Outage | undefined,
    isEnough: boolean,
  ): number[] {
    const again: number[] = [];
    /**
     * Keys for which an earlier message in this batch is now a dead letter. If a later message with such a key was
     * rejected too, its own failure decides what happens to it.
     */
    const pastDead = new Set<string>();
    batch.forEach((place, i) => {
      const answered = answers[i];
      if (answered === undefined) {
        again.push(place);
        return;
      }
      const { failure, message } = answered;
      if (failure === undefined) return;
      const { key } = message;
      const isAlike = failure.signature === outage?.signature;
      const isRefused = key !== undefined && pastDead.has(key) && failure.kind === 'permanent';
      if (key !== undefined && this.#blocked.has(key) && !isRefused) this.behind(place);
      else if (isAlike && isEnough) this.#doubt(place, failure);
      else if (outage !== undefined && !isEnough && (isAlike || failure.kind !== 'permanent')) again.push(place);
      else if (this.#fail(place, failure) && key !== undefined) pastDead.add(key);
    });
    return again;
  }

  /**
   * Parks a message for a failure that the broker may have caused. Only the first such failure counts as an attempt.
   */
  #doubt(place: number, failure: Failure): void {
    const message = this.#message(place);
    const times = this.#options.outageDetector.doubt(message, failure);
    const attempts = Math.max(1, this.#attempts(place));
    this.#again(place, failure, attempts, Math.max(attempts, times));
  }

  /**
   * Records a failure that the message itself caused.
   * @returns whether the message is now a dead letter, so that later messages with its key can still be published.
   */
  #fail(place: number, failure: Failure): boolean {
    const { outageDetector, policyOf, onFailure } = this.#options;
    const { error, kind } = failure;
    const message = this.#message(place);
    const attempts = this.#attempts(place) + 1;
    const { maxAttempts, onExhausted } = policyOf(message.topic);
    const isFinal = (kind === 'permanent' && !outageDetector.isDoubted(message, failure)) || attempts >= maxAttempts;
    if (!isFinal) {
      this.#again(place, failure, attempts, attempts);
      return false;
    }
    outageDetector.forget(message);
    const dead = onExhausted === 'dead-letter';
    this.#park(place, { attempts, error, dead, ...(!dead && { blocked: true }) });
    const what = dead ? 'is a dead letter' : 'blocks its key until an operator decides';
    const after = kind === 'permanent' ? '' : ` after ${String(attempts)} attempts`;
    const text = `message ${message.id} ${what}${after}: ${textOf(error)}`;
    onFailure(new PublishError(text, { kind, cause: error }), { message, error, kind, attempts }, true);
    return dead;
  }

  /** Parks a message to be tried again. */
  #again(place: number, { error, kind }: Failure, attempts: number, failures: number): void {
    const { policyOf, clock, onFailure } = this.#options;
    const message = this.#message(place);
    const retryIn = backoff(failures, policyOf(message.topic), clock);
    this.#park(place, { attempts, error, retryIn });
    const when = `attempt ${String(attempts)}, next in ${String(Math.round(retryIn))} ms`;
    const text = `message ${message.id} was not published (${when}): ${textOf(error)}`;
    onFailure(new PublishError(text, { kind, cause: error }), { message, error, kind, attempts }, false);
  }

  #park(place: number, more: Partial<ToPark>): void {
    const { key } = this.#message(place);
    // Later messages with the key also wait behind a dead letter until it is settled. Otherwise, after a crash, the
    // dead letter would be tried again after them.
    if (key !== undefined) this.#blocked.add(key);
    this.#toPark.push(this.#toParkOf(place, more));
  }

  #toParkOf(place: number, more: Partial<ToPark>): ToPark {
    return { message: this.#message(place), attempts: this.#attempts(place), dead: false, ...more };
  }

  /** Reports how many messages were in flight when the relay stopped waiting for them. They will be published again. */
  #tellCut(results: readonly PublishResult[]): void {
    const { cut, onCut } = this.#options;
    if (cut?.signal.aborted !== true) return;
    onCut?.(results.filter((result) => !result.acknowledged && !isUnsent(result.error)).length);
  }

  /**
   * Returns the answer for a message. Returns `undefined` if the message was not sent because another call was not
   * answered. Also returns `undefined` if the relay is stopping, and so did not send the message or stopped waiting for
   * its answer.
   */
  #answered(place: number, result: PublishResult): Answered | undefined {
    const message = this.#message(place);
    const attempts = this.#attempts(place);
    if (result.acknowledged) return { message, attempts };
    const { error } = result;
    const { stop, cut, kindOf } = this.#options;
    if (isHeldUp(error)) return undefined;
    if (cut?.signal.aborted === true || (stop.aborted && error.cause === stop.reason)) return undefined;
    const kind = kindOf(error);
    return { message, attempts, failure: { error, kind, signature: signatureOf(error, kind) } };
  }

  #attempts(place: number): number {
    return this.#page.attempts?.[place] ?? 0;
  }

  #message(place: number): Message {
    return this.#page.messages[place] as Message;
  }
}

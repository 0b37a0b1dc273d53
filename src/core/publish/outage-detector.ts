import { isUnanswered } from './calls.js';
import type { FailureKind } from '../errors.js';
import type { Message } from '../contracts/message.js';

/** The broker's answer for one message of a batch. */
export interface Answered {
  readonly message: Message;
  /** Failed attempts before this one. */
  readonly attempts: number;
  /** Absent if the message was acknowledged. */
  readonly failure?: Failure;
}

/** A failure. Similar failures have the same signature. */
export interface Failure {
  readonly error: Error;
  readonly kind: FailureKind;
  readonly signature: string;
}

/** A failure of the broker as a whole. */
export interface Outage extends Failure {
  /** Whether the error itself says that the broker fails. Otherwise a failure of the broker is only suspected. */
  readonly certain: boolean;
}

type Topic = string | undefined;

/**
 * How many similar refusals in a row, for different messages of a topic, are blamed on the messages. One more is blamed
 * on the broker.
 */
const BELIEVED_ON_END = 3;

/** How many topics, and how many messages, are remembered. Beyond that, the oldest are forgotten. */
const MAX_KEPT = 10_000;

/** A message that was parked although the broker may have caused the failure. */
interface Doubt {
  readonly signature: string;
  /** How often the message was parked like this. */
  readonly times: number;
  /** The value of `#acknowledgements` when the message was last parked like this. */
  readonly at: number;
}

/**
 * Decides whether the broker or the message caused a failure, if the error does not say.
 *
 * The broker is blamed in three cases: a call is not answered while no other call is acknowledged, most messages in a
 * batch fail alike, or a topic gets one similar refusal after another. The message is blamed as soon as another message
 * of its topic was acknowledged, and this message then fails again as before.
 */
export class OutageDetector {
  /** Whether the broker has been tried often enough, and has acknowledged nothing since. */
  exhausted = false;
  readonly #refusals = new Map<Topic, { signature: string; count: number }>();
  readonly #doubts = new Map<string, Doubt>();
  /** For each topic with doubts: the value of `#acknowledgements` when a message of the topic was last acknowledged. */
  readonly #acknowledged = new Map<Topic, number>();
  #acknowledgements = 0;

  /** Call this for all acknowledged messages. */
  acknowledged(messages: () => Iterable<Message>): void {
    this.exhausted = false;
    if (this.#refusals.size === 0 && this.#doubts.size === 0) return;
    this.#acknowledgements += 1;
    for (const { id, topic } of messages()) {
      this.#doubts.delete(id);
      this.#refusals.delete(topic);
      if (this.#acknowledged.has(topic)) this.#acknowledged.set(topic, this.#acknowledgements);
    }
    if (this.#doubts.size === 0) this.#acknowledged.clear();
  }

  /**
   * Whether the broker may still be refusing every message of this topic, and not only this message. That is so if the
   * message was parked in such doubt before, for a similar failure, and no message of its topic was acknowledged since.
   */
  isDoubted({ id, topic }: Message, { signature }: Failure): boolean {
    const doubt = this.#doubts.get(id);
    return doubt?.signature === signature && (this.#acknowledged.get(topic) ?? 0) <= doubt.at;
  }

  /**
   * Remembers that a message is parked for a failure that the broker may have caused.
   * @returns how often the message was parked like this.
   */
  doubt({ id, topic }: Message, { signature }: Failure): number {
    const times = (this.#doubts.get(id)?.times ?? 0) + 1;
    this.#doubts.delete(id);
    keep(this.#doubts, id, { signature, times, at: this.#acknowledgements });
    if (!this.#acknowledged.has(topic)) keep(this.#acknowledged, topic, 0);
    return times;
  }

  /** Forgets a message that will not be tried again. */
  forget({ id }: Message): void {
    this.#doubts.delete(id);
  }

  /**
   * Returns the failure of the broker as a whole, or `undefined` if the broker did not fail.
   *
   * @param open The signature of the failures for which publishing is paused now.
   */
  judge(answers: readonly Answered[], open: string | undefined): Outage | undefined {
    const failed = answers.flatMap(({ failure }) => failure ?? []);
    const connection = failed.find(({ kind }) => kind === 'connection');
    if (connection !== undefined) return { ...connection, certain: true };
    // While publishing is paused, another failure with the same signature is part of the same outage.
    const same = failed.find(({ signature }) => signature === open);
    const isSilent = failed.length === answers.length;
    const outage =
      (isSilent ? same : undefined) ?? this.#unanswered(answers) ?? this.#most(answers) ?? this.#refusedOnEnd(answers);
    return outage && { ...outage, certain: false };
  }

  /** Returns the failure of a message that has not failed before, and whose call was not answered. */
  #unanswered(answers: readonly Answered[]): Failure | undefined {
    return answers.find(
      (answered) =>
        answered.failure && isUnanswered(answered.failure.error) && this.#isEvidence(answered, answered.failure),
    )?.failure;
  }

  /**
   * Returns the failure that more than half of a batch has in common. Messages with the same key count as one, because
   * they fail together. Messages that failed before do not count, because another failure says nothing about the
   * broker.
   */
  #most(answers: readonly Answered[]): Failure | undefined {
    const units = new Set<unknown>();
    const alike = new Map<string, { failure: Failure; count: number }>();
    const counted = new Set<string>();
    for (const answered of answers) {
      const { message, failure } = answered;
      units.add(message.key ?? message);
      if (failure === undefined || !this.#isEvidence(answered, failure)) continue;
      if (message.key !== undefined) {
        if (counted.has(message.key)) continue;
        counted.add(message.key);
      }
      const group = alike.get(failure.signature);
      if (group === undefined) alike.set(failure.signature, { failure, count: 1 });
      else group.count += 1;
    }
    for (const { failure, count } of alike.values()) if (count > 1 && count * 2 > units.size) return failure;
    return undefined;
  }

  /**
   * Returns a refusal that follows similar refusals in the same topic, if no message of the topic was acknowledged in
   * between.
   */
  #refusedOnEnd(answers: readonly Answered[]): Failure | undefined {
    let outage: Failure | undefined;
    const acknowledged = new Set(answers.flatMap(({ message, failure }) => (failure ? [] : [message.topic])));
    for (const answered of answers) {
      const { message, failure } = answered;
      if (failure?.kind !== 'permanent' || acknowledged.has(message.topic)) continue;
      if (!this.#isEvidence(answered, failure)) continue;
      const known = this.#refusals.get(message.topic);
      const count = known?.signature === failure.signature ? known.count + 1 : 1;
      keep(this.#refusals, message.topic, { signature: failure.signature, count });
      if (count > BELIEVED_ON_END) outage ??= failure;
    }
    return outage;
  }

  #isEvidence({ message, attempts }: Answered, failure: Failure): boolean {
    if (this.#doubts.get(message.id)?.signature !== failure.signature)
      return attempts === 0 || failure.kind === 'permanent';
    return failure.kind === 'permanent' && this.isDoubted(message, failure);
  }
}

function keep<Name, Value>(map: Map<Name, Value>, name: Name, value: Value): void {
  map.set(name, value);
  if (map.size <= MAX_KEPT) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

import { isUnanswered } from './calls.js';
import type { FailureKind } from '../errors.js';
import type { Message } from '../contracts/message.js';

/** The broker's answer for one message in a batch. */
export interface Answered {
  readonly message: Message;
  /** How many attempts failed before this one. */
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

/** A broker outage: the broker as a whole is failing, and not just one message. */
export interface Outage extends Failure {
  /** Whether the error itself shows that there is an outage. Otherwise, the outage is only suspected. */
  readonly certain: boolean;
}

type Topic = string | undefined;

/**
 * How many similar rejections in a row, of different messages with the same topic, are blamed on the messages. The next
 * one is blamed on the broker.
 */
const BELIEVED_ON_END = 3;

/** How many topics, and how many messages, are remembered. Beyond that, the oldest are forgotten. */
const MAX_KEPT = 10_000;

/** A record of a message that was parked for a failure that the broker may have caused. */
interface Doubt {
  readonly signature: string;
  /** How many times the message has been parked for such a failure. */
  readonly times: number;
  /** The value of `#acknowledgements` when the message was last parked for such a failure. */
  readonly at: number;
}

/**
 * Decides whether the broker or the message caused a failure, if the error itself does not show that.
 *
 * The broker is blamed in three cases:
 *
 * - A call is not answered, and no other call is acknowledged in the meantime.
 * - Most messages in a batch fail with similar errors.
 * - A topic gets several similar rejections in a row.
 *
 * A message is blamed if it fails again with a similar error after another message with the same topic was
 * acknowledged.
 */
export class OutageDetector {
  /** Whether messages have been tried often enough in a suspected outage. Any acknowledgement resets this to false. */
  exhausted = false;
  readonly #refusals = new Map<Topic, { signature: string; count: number }>();
  readonly #doubts = new Map<string, Doubt>();
  /**
   * The value of `#acknowledgements` when a message with the topic was last acknowledged. Kept only for topics with
   * doubts.
   */
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
   * Whether the broker may still be rejecting every message with this topic, and not only this message. True if the
   * message was parked for a similar failure before, and no message with its topic has been acknowledged since then.
   */
  isDoubted({ id, topic }: Message, { signature }: Failure): boolean {
    const doubt = this.#doubts.get(id);
    return doubt?.signature === signature && (this.#acknowledged.get(topic) ?? 0) <= doubt.at;
  }

  /**
   * Remembers that a message is parked for a failure that the broker may have caused.
   * @returns how many times the message has been parked for such a failure.
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
   * Returns the broker outage that the answers reveal, or `undefined` if there is none.
   *
   * @param open The signature of the failure for which publishing is currently paused.
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

  /** Returns the failure of a message whose call was not answered, if the message had not failed before. */
  #unanswered(answers: readonly Answered[]): Failure | undefined {
    return answers.find(
      (answered) =>
        answered.failure && isUnanswered(answered.failure.error) && this.#isEvidence(answered, answered.failure),
    )?.failure;
  }

  /**
   * Returns one of the failures if more than half of the messages in a batch have similar failures. Messages with the
   * same key count as one, because they fail together. The failures of messages that failed before do not count,
   * because they say nothing about the broker.
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
   * Returns a rejection that comes after `BELIEVED_ON_END` similar rejections for the same topic, with no
   * acknowledgement for that topic between them.
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

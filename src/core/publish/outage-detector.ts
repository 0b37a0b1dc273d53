import { isUnanswered } from './calls.js';
import type { FailureKind } from '../errors.js';
import type { Message } from '../contracts/message.js';

/** What the broker answered for one message of a batch. */
export interface Answered {
  readonly message: Message;
  /** Failed attempts before this one. */
  readonly attempts: number;
  /** Absent when it was acknowledged. */
  readonly failure?: Failure;
}

/** A failure, and what failures like it have in common. */
export interface Failure {
  readonly error: Error;
  readonly kind: FailureKind;
  readonly signature: string;
}

/** A failure of the broker as a whole. */
export interface Outage extends Failure {
  /** It said so itself, and is not merely suspected of it. */
  readonly certain: boolean;
}

type Topic = string | undefined;

/** Refusals alike on end, of different messages of a topic, that are believed to be of the messages. */
const BELIEVED_ON_END = 3;

/** How many topics, and how many messages, are kept in mind: beyond it the oldest are forgotten. */
const MAX_KEPT = 10_000;

/** A message that was parked although the failure may not be its own. */
interface Doubt {
  readonly signature: string;
  /** How often it came to this. */
  readonly times: number;
  /** What `#acknowledgements` was then. */
  readonly at: number;
}

/**
 * Whether a failure is the broker's or the message's own, where the error does not say.
 *
 * It is taken for the broker's when a call has no answer and no other was acknowledged meanwhile, when most of
 * a batch fails alike, and when a topic has nothing but refusals alike on end. It is believed to be a message's own as soon as something else of its topic
 * was acknowledged, and the message fails again as before.
 */
export class OutageDetector {
  /** Whether the broker has been tried as often as it is worth, and nothing was acknowledged since. */
  exhausted = false;
  readonly #refusals = new Map<Topic, { signature: string; count: number }>();
  readonly #doubts = new Map<string, Doubt>();
  /** When something of a topic with doubts was last acknowledged, as counted by `#acknowledgements`. */
  readonly #acknowledged = new Map<Topic, number>();
  #acknowledgements = 0;

  /** To be told of every acknowledged message. */
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
   * Whether a refusal of this message may still be what the broker does to all of its topic, since it was
   * taken for that before, and nothing of the topic was acknowledged since.
   */
  isDoubted({ id, topic }: Message, { signature }: Failure): boolean {
    const doubt = this.#doubts.get(id);
    return doubt?.signature === signature && (this.#acknowledged.get(topic) ?? 0) <= doubt.at;
  }

  /** Keeps in mind that a message is parked for what may be the broker's failure. @returns how often it was. */
  doubt({ id, topic }: Message, { signature }: Failure): number {
    const times = (this.#doubts.get(id)?.times ?? 0) + 1;
    this.#doubts.delete(id);
    keep(this.#doubts, id, { signature, times, at: this.#acknowledgements });
    if (!this.#acknowledged.has(topic)) keep(this.#acknowledged, topic, 0);
    return times;
  }

  /** A message that is not tried again. */
  forget({ id }: Message): void {
    this.#doubts.delete(id);
  }

  /**
   * The failure of the broker as a whole, if that is what failed.
   *
   * @param open What the failures had in common for which publishing is paused now.
   */
  judge(answers: readonly Answered[], open: string | undefined): Outage | undefined {
    const failed = answers.flatMap(({ failure }) => failure ?? []);
    const connection = failed.find(({ kind }) => kind === 'connection');
    if (connection !== undefined) return { ...connection, certain: true };
    // While it is paused, one failure more like that is one more of the same.
    const same = failed.find(({ signature }) => signature === open);
    const isSilent = failed.length === answers.length;
    const outage =
      (isSilent ? same : undefined) ?? this.#unanswered(answers) ?? this.#most(answers) ?? this.#refusedOnEnd(answers);
    return outage && { ...outage, certain: false };
  }

  /** A message that has not failed before, of a call without an answer. */
  #unanswered(answers: readonly Answered[]): Failure | undefined {
    return answers.find(
      (answered) =>
        answered.failure && isUnanswered(answered.failure.error) && this.#isEvidence(answered, answered.failure),
    )?.failure;
  }

  /**
   * What more than half of a batch has in common. Messages of one key count as one, since they fail
   * together, and ones that failed before do not count: they say nothing of the broker by failing again.
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

  /** A refusal that follows others alike of its topic, of which nothing was acknowledged between. */
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

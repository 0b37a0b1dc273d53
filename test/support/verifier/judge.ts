/** What a committed order says: the message that must arrive, and its place among those of its key. */
export interface Committed {
  readonly id: string;
  readonly key: string;
  readonly place: number;
}

export interface Evidence {
  /** Ids of the messages in the log. */
  readonly log: readonly string[];
  /** How many of them the store itself holds to be published. */
  readonly published: number;
  readonly committed: readonly Committed[];
  /** Ids in the order of the broker's acknowledgements, as a queue of the verifier's own got them. */
  readonly queue: readonly string[];
  /** Ids in the order in which the consumer wrote them down. */
  readonly consumer: readonly string[];
}

/** What is wrong with one list of arrivals. */
export interface Judgement {
  /** Different messages. */
  readonly received: number;
  /** Committed, and not received. */
  readonly lost: number;
  /** Received, and not committed. */
  readonly phantom: number;
  /** Messages whose first arrival is after that of a later message of their key. */
  readonly inversions: number;
  /** Arrivals of messages that had arrived before. */
  readonly duplicates: number;
}

/** The whole: of the queue and the consumer, whatever is worse; and `received` is the consumer's. */
export interface Findings extends Judgement {
  readonly ok: boolean;
  readonly stored: number;
  readonly published: number;
  readonly queue: Judgement;
  readonly consumer: Judgement;
}

export function findings({ log, published, committed, queue, consumer }: Evidence): Findings {
  const inLog = new Set(log);
  const orders = new Map(committed.map((order) => [order.id, order]));
  /** Whatever the transaction left behind, in either table, must arrive. */
  const expected = new Set([...inLog, ...orders.keys()]);
  /** And only what it left in both was committed as a whole. */
  const whole = new Map([...orders].filter(([id]) => inLog.has(id)));

  const ofQueue = judge(queue, expected, whole);
  const ofConsumer = judge(consumer, expected, whole);
  const worse = (name: keyof Judgement) => Math.max(ofQueue[name], ofConsumer[name]);
  const [lost, phantom, inversions] = [worse('lost'), worse('phantom'), worse('inversions')];
  return {
    ok: lost === 0 && phantom === 0 && inversions === 0 && published === log.length,
    stored: log.length,
    published,
    received: ofConsumer.received,
    lost,
    phantom,
    inversions,
    duplicates: worse('duplicates'),
    queue: ofQueue,
    consumer: ofConsumer,
  };
}

function judge(
  arrivals: readonly string[],
  expected: ReadonlySet<string>,
  whole: ReadonlyMap<string, Committed>,
): Judgement {
  const first = new Set(arrivals);
  return {
    received: first.size,
    lost: [...expected].filter((id) => !first.has(id)).length,
    phantom: [...first].filter((id) => !whole.has(id)).length,
    inversions: inversions([...first].flatMap((id) => whole.get(id) ?? [])),
    duplicates: arrivals.length - first.size,
  };
}

function inversions(arrived: readonly Committed[]): number {
  const latest = new Map<string, number>();
  let found = 0;
  for (const { key, place } of arrived) {
    const before = latest.get(key) ?? -Infinity;
    if (place < before) found += 1;
    latest.set(key, Math.max(before, place));
  }
  return found;
}

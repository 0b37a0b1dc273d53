import type { DestinationState } from '../../core/contracts/admin.js';
import { DEFAULT_DESTINATION } from '../../core/contracts/feed.js';
import { Destination } from './destination.js';
import type { MemoryLog } from './log.js';

/** The highest count that is reported. Higher counts are also reported as this number. */
const COUNTED = 10_000;

/**
 * Returns the states of all destinations, sorted by name. Even before its first relay, `default` is included if there
 * are messages that only `default` will publish.
 */
export function destinationStates(log: MemoryLog): DestinationState[] {
  const states = [...log.destinations.values()].map((each) => destinationState(log, each));
  if (!states.some(({ name, topics }) => name === DEFAULT_DESTINATION || topics === null)) {
    const unclaimed = unclaimedState(log);
    if (unclaimed.pending > 0) states.push(unclaimed);
  }
  return states.sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function destinationState(log: MemoryLog, destination: Destination): DestinationState {
  const now = log.now();
  const { name, topics, createdAt, forgetAfter, forgottenAt, holder, parked } = destination;
  const pending = log.kept.filter((kept) => destination.isPending(kept));
  const count = (...fates: string[]) => Math.min(parked.filter(({ fate }) => fates.includes(fate)).length, COUNTED);
  const relays = destination.relays(now);
  const workedAt = destination.workedAt(now);
  const isStalled = forgottenAt === null && pending.length > 0 && relays === 0;
  const [oldest] = pending;
  return {
    name,
    topics: topics && [...topics],
    partitions: 1,
    held: holder === undefined ? 0 : 1,
    relays,
    pending: Math.min(pending.length, COUNTED),
    morePending: pending.length > COUNTED,
    oldestPending: oldest === undefined ? null : now - oldest.storedAt,
    parked: count('retry', 'blocked'),
    blocked: count('blocked'),
    dead: count('dead'),
    createdAt: dateOf(createdAt),
    activeAt: dateOf(workedAt),
    stalledSince: isStalled ? dateOf(latest(workedAt, createdAt)) : null,
    forgetAfter,
    forgottenAt: dateOf(forgottenAt),
  };
}

/**
 * Returns the state of `default` before its first relay. `default` will publish the messages that no other destination
 * publishes.
 */
function unclaimedState(log: MemoryLog): DestinationState {
  const claimed = [...log.destinations.values()];
  const isClaimed = (topic: string | undefined) =>
    topic !== undefined && claimed.some(({ topics }) => topics?.includes(topic) === true);
  const own = log.kept.filter(({ message: { topic, destination } }) => destination === undefined && !isClaimed(topic));
  const [oldest] = own;
  return {
    ...destinationState(log, new Destination(DEFAULT_DESTINATION, {})),
    pending: Math.min(own.length, COUNTED),
    morePending: own.length > COUNTED,
    oldestPending: oldest === undefined ? null : log.now() - oldest.storedAt,
    stalledSince: dateOf(oldest?.storedAt ?? null),
  };
}

export function dateOf(time: number | null): Date | null {
  return time === null ? null : new Date(time);
}

function latest(...times: readonly (number | null)[]): number | null {
  const known = times.filter((time) => time !== null);
  return known.length === 0 ? null : Math.max(...known);
}

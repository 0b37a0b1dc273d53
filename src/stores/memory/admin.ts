import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterSelection,
  OutboxAdmin,
  ParkedMessage,
  ParkedState,
} from '../../core/contracts/admin.js';
import {
  checkAddDestination,
  checkDeadLetters,
  checkParked,
  checkRemoveDestination,
  checkSelection,
  checkUpdateDestination,
  destinationExists,
  fromFuture,
  hasMessages,
  relayWorksOn,
  unknownDestination,
} from '../../core/contracts/admin-options.js';
import type { StoreCallOptions } from '../../core/contracts/call-options.js';
import { DEFAULT_DESTINATION } from '../../core/contracts/feed.js';
import { MessengerError } from '../../core/errors.js';
import { Destination, type Parked } from './destination.js';
import { dateOf, destinationState, destinationStates } from './destination-state.js';
import type { MemoryLog } from './log.js';
import { copyOf } from './transaction.js';

/** Creates the `admin` for a store in memory. */
export function memoryAdmin(log: MemoryLog): OutboxAdmin {
  const change = (selection: DeadLetterSelection, work: (destination: Destination, parked: Parked) => void) =>
    operate(selection, () => {
      checkSelection(selection);
      const destination = find(log, selection.destination);
      const meant = givenUp(destination, selection);
      if (destination === undefined || selection.dryRun === true) return meant.length;
      for (const each of meant) work(destination, each);
      log.changed.ring();
      return meant.length;
    });
  return {
    destinations: (options = {}) => operate(options, () => destinationStates(log)),
    addDestination: (name, options) =>
      operate(options, () => {
        checkAddDestination(name, options);
        const { from, topics, forgetAfter } = options;
        const createdAt = log.now();
        if (from instanceof Date && from.getTime() > createdAt) throw fromFuture(from);
        if (log.destinations.has(name)) throw destinationExists(name);
        log.add(new Destination(name, { topics, forgetAfter, createdAt, after: log.before(from) }));
      }),
    updateDestination: (name, options) =>
      operate(options, () => {
        checkUpdateDestination(name, options);
        known(log, name).forgetAfter = options.forgetAfter;
      }),
    removeDestination: (name, options = {}) =>
      operate(options, () => {
        checkRemoveDestination(name, options);
        const destination = known(log, name);
        if (destination.relays(log.now()) > 0) throw new MessengerError('CONFLICT', relayWorksOn(name));
        const { pending, morePending, parked, dead } = destinationState(log, destination);
        const gone = { pending, morePending, parked, dead };
        if (pending + parked + dead > 0 && options.discard !== true) throw hasMessages(name, gone);
        log.destinations.delete(name);
        return gone;
      }),
    parked: (options = {}) =>
      operate(options, () => {
        const { limit, after } = checkParked(options);
        const destination = find(log, options.destination);
        const firsts = new Set(destination?.firsts());
        const waiting = destination?.parked.filter(({ fate }) => fate !== 'dead') ?? [];
        const isMeant = ({ seq, state }: ParkedMessage) =>
          seq > after && (options.state === undefined || state === options.state);
        return waiting
          .filter((each) => matches(each, options))
          .map((each) => parkedMessage(each, firsts.has(each)))
          .filter(isMeant)
          .slice(0, limit);
      }),
    deadLetters: (options = {}) =>
      operate(options, () => {
        const { limit, after } = checkDeadLetters(options);
        const found = givenUp(find(log, options.destination), options);
        return found
          .filter(({ kept }) => kept.seq > after)
          .slice(0, limit)
          .map(deadLetter);
      }),
    requeue: (selection) =>
      change(selection, (destination, each) => {
        destination.requeue(each, log.now());
      }),
    discard: (selection) =>
      change(selection, (destination, { kept }) => {
        destination.published(kept);
      }),
  };
}

/**
 * Finds a destination. `default` counts as existing even before its first relay. The result is then `undefined`.
 *
 * @throws MessengerError `UNKNOWN_DESTINATION`.
 */
function find(log: MemoryLog, name: string = DEFAULT_DESTINATION): Destination | undefined {
  return name === DEFAULT_DESTINATION ? log.destinations.get(name) : known(log, name);
}

function known(log: MemoryLog, name: string): Destination {
  const destination = log.destinations.get(name);
  if (destination === undefined) throw unknownDestination(name, [...log.destinations.keys()].sort());
  return destination;
}

/** Returns the dead letters and blocked messages that match every given filter. */
function givenUp(destination: Destination | undefined, { state, since, until, ...filter }: DeadLetterFilter): Parked[] {
  return (destination?.parked ?? []).filter((each) => {
    const { givenUpAt, fate } = each;
    if (givenUpAt === null || (state !== undefined && fate !== state) || !matches(each, filter)) return false;
    return givenUpAt >= (since?.getTime() ?? -Infinity) && givenUpAt < (until?.getTime() ?? Infinity);
  });
}

function matches({ kept: { message }, error: text }: Parked, { ids, key, topic, error }: MessageFilter): boolean {
  if (ids !== undefined && !ids.includes(message.id)) return false;
  if (key !== undefined && message.key !== key) return false;
  if (topic !== undefined && message.topic !== topic) return false;
  return error === undefined || text?.includes(error) === true;
}

type MessageFilter = Pick<DeadLetterFilter, 'ids' | 'key' | 'topic' | 'error'>;

function deadLetter(parked: Parked): DeadLetter {
  const state = parked.fate === 'dead' ? 'dead' : 'blocked';
  return { ...told(parked), state, givenUpAt: new Date(parked.givenUpAt ?? 0) };
}

function parkedMessage(parked: Parked, isFirst: boolean): ParkedMessage {
  const state = stateOf(parked, isFirst);
  const hasTime = state === 'retry' || state === 'delayed';
  return { ...told(parked), state, nextAt: hasTime ? new Date(parked.nextAt) : null };
}

function stateOf({ fate, reason }: Parked, isFirst: boolean): ParkedState {
  if (fate === 'blocked') return 'blocked';
  if (!isFirst) return 'behind';
  return reason === 'delayed' ? 'delayed' : 'retry';
}

function told({ kept, error, reason, attempts, firstFailedAt, lastFailedAt }: Parked) {
  return {
    seq: kept.seq,
    message: copyOf(kept.message, false),
    error,
    reason,
    attempts,
    storedAt: new Date(kept.storedAt),
    firstFailedAt: dateOf(firstFailedAt),
    lastFailedAt: dateOf(lastFailedAt),
  };
}

/**
 * Runs an operation at once, and returns a promise for its result. If the operation throws, for example because of an
 * invalid option, the promise rejects.
 */
function operate<T>(options: StoreCallOptions | undefined, work: () => T): Promise<T> {
  return new Promise((resolve) => {
    options?.signal?.throwIfAborted();
    resolve(work());
  });
}

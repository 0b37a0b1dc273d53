/**
 * Checks for the options of the `admin` methods. All stores use these checks, so all stores throw the same errors.
 *
 * @module
 */
import { MessengerError } from '../errors.js';
import { describe } from '../util/describe.js';
import { checkKeys, numberOption, type KeysOf } from '../util/options.js';
import { DEFAULT_DESTINATION } from './feed.js';
import type {
  AddDestinationOptions,
  DeadLetterFilter,
  DeadLetterSelection,
  DeadLettersOptions,
  ParkedOptions,
  ParkedState,
  RemoveDestinationOptions,
  UpdateDestinationOptions,
} from './admin.js';

const HUNDRED_YEARS = 3_155_760_000_000;

/**
 * The longest name of a destination, in bytes. A PostgreSQL index entry has room for such a name together with the
 * longest key, and not much more.
 */
const LONGEST_DESTINATION = 500;

/** @throws MessengerError `INVALID_OPTION` if the value cannot be the name of a destination. */
export function assertDestination(name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name !== '' && !name.includes('\u0000');
  if (fits && new TextEncoder().encode(name).length <= LONGEST_DESTINATION) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `the name of a destination must be a non-empty string of at most ${String(LONGEST_DESTINATION)} bytes, got ${describe(name)}`,
  );
}

/**
 * Returns the error for a destination that was never added and never had a relay. `known` contains the names of the
 * existing destinations.
 */
export function unknownDestination(name: string, known: readonly string[]): MessengerError {
  const names = known.slice(0, 20).map((each) => JSON.stringify(each));
  return new MessengerError(
    'UNKNOWN_DESTINATION',
    `there is no destination ${JSON.stringify(name)}; there ${names.length === 0 ? 'is none' : `are ${names.join(', ')}`}`,
  );
}

/** Returns the error for an attempt to add a destination that already exists. */
export function destinationExists(name: string): MessengerError {
  return new MessengerError(
    'CONFLICT',
    `there is already a destination ${JSON.stringify(name)}: remove it first, or give this one another name`,
  );
}

/** Returns the error message for an attempt to remove a destination that a relay is serving. */
export function relayWorksOn(name: string): string {
  return `a relay works on destination ${JSON.stringify(name)}: stop its relays first (a relay that died still counts until its lease expires)`;
}

/**
 * Returns the error for a relay whose destination was forgotten at the time `at`. `topics` is the JSON of the
 * destination's topics, if it was added with topics.
 */
export function destinationForgotten(destination: string, at: string, topics: string | undefined): MessengerError {
  const name = JSON.stringify(destination);
  const more = topics === undefined ? '' : `, topics: ${topics}`;
  return new MessengerError(
    'DESTINATION_FORGOTTEN',
    `destination ${name} was forgotten at ${at}: no relay worked on it for longer than its forgetAfter, and messages that it had not published may be gone. Remove it and add it again: \`await store.admin.removeDestination(${name}, { discard: true })\`, \`await store.admin.addDestination(${name}, { from: …${more} })\``,
  );
}

/** Returns the error for an attempt to remove a destination that still has messages, without the `discard` option. */
export function hasMessages(
  name: string,
  { pending, morePending, parked, dead }: { pending: number; morePending: boolean; parked: number; dead: number },
): MessengerError {
  return new MessengerError(
    'CONFLICT',
    `destination ${JSON.stringify(name)} has not published ${morePending ? 'at least ' : ''}${String(pending)} messages, ${String(parked)} more wait to be tried again, and ${String(dead)} are dead letters: pass { discard: true } to discard them with the destination`,
  );
}

/** @throws MessengerError `INVALID_OPTION`, as every check in this file does. */
export function checkAddDestination(name: string, options: AddDestinationOptions): void {
  checkKeys(options, {
    from: true,
    topics: true,
    forgetAfter: true,
    signal: true,
  } satisfies KeysOf<AddDestinationOptions>);
  assertDestination(name);
  const { from, topics, forgetAfter } = options;
  const isTime = from instanceof Date && !Number.isNaN(from.getTime());
  if (!isTime && from !== 'beginning' && from !== 'end') {
    throw new MessengerError('INVALID_OPTION', `from must be 'beginning', 'end' or a Date, got ${describe(from)}`);
  }
  if (!Array.isArray(topics) || topics.length > 0) checkStrings('topics', topics);
  checkForgetAfter(forgetAfter);
}

/** Returns the error for a `from` date that is in the future, by the store's clock. */
export function fromFuture(from: AddDestinationOptions['from']): MessengerError {
  return new MessengerError('INVALID_OPTION', `from must not be in the future, got ${describe(from)}`);
}

export function checkUpdateDestination(name: string, options: UpdateDestinationOptions): void {
  checkKeys(options, { forgetAfter: true, signal: true } satisfies KeysOf<UpdateDestinationOptions>);
  assertDestination(name);
  const forgetAfter: unknown = options.forgetAfter;
  if (forgetAfter === undefined)
    throw new MessengerError('INVALID_OPTION', 'forgetAfter must be a number or null, got undefined');
  if (forgetAfter !== null) checkForgetAfter(forgetAfter);
}

export function checkRemoveDestination(name: string, options: RemoveDestinationOptions): void {
  checkKeys(options, { discard: true, signal: true } satisfies KeysOf<RemoveDestinationOptions>);
  assertDestination(name);
}

/** The filters for a destination's messages. */
const FILTERS = { ids: true, key: true, topic: true, state: true, error: true, since: true, until: true } as const;

const FILTER_KEYS = { ...FILTERS, destination: true, signal: true } satisfies KeysOf<DeadLetterFilter>;

const LETTER_KEYS = { ...FILTER_KEYS, limit: true, after: true } satisfies KeysOf<DeadLettersOptions>;

const SELECTION_KEYS = { ...FILTER_KEYS, all: true, dryRun: true } satisfies KeysOf<DeadLetterSelection>;

const PARKED_KEYS = {
  destination: true,
  ids: true,
  key: true,
  topic: true,
  state: true,
  error: true,
  limit: true,
  after: true,
  signal: true,
} satisfies KeysOf<ParkedOptions>;

const PARKED_STATES = { retry: true, behind: true, delayed: true, blocked: true } satisfies Record<ParkedState, true>;

/** A part of a list: at most `limit` messages whose `seq` is greater than `after`. */
export interface ListPage {
  readonly limit: number;
  readonly after: number;
}

/** @returns the part of the list that the options ask for. */
export function checkDeadLetters(options: DeadLettersOptions): ListPage {
  checkKeys(options, LETTER_KEYS);
  checkFilter(options);
  return pageOf(options);
}

export function checkSelection(selection: DeadLetterSelection): void {
  checkKeys(selection, SELECTION_KEYS);
  const filters = Object.keys(FILTERS) as (keyof typeof FILTERS)[];
  if (selection.all !== true && filters.every((name) => selection[name] === undefined)) {
    throw new MessengerError(
      'INVALID_OPTION',
      `say which messages: pass at least one of ${filters.join(', ')}, or { all: true }`,
    );
  }
  checkFilter(selection);
}

/** @returns the part of the list that the options ask for. */
export function checkParked(options: ParkedOptions): ListPage {
  checkKeys(options, PARKED_KEYS);
  const { state } = options;
  if (state !== undefined && !Object.hasOwn(PARKED_STATES, state)) {
    const states = Object.keys(PARKED_STATES).map((each) => `'${each}'`);
    throw new MessengerError('INVALID_OPTION', `state must be one of ${states.join(', ')}, got ${describe(state)}`);
  }
  checkMessages(options);
  return pageOf(options);
}

function pageOf({ limit, after }: Pick<ParkedOptions, 'limit' | 'after'>): ListPage {
  return {
    limit: numberOption('limit', limit, 100, { min: 1, max: 10_000, integer: true }),
    after: numberOption('after', after, 0, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
  };
}

function checkFilter(filter: DeadLetterFilter): void {
  const { state, since, until } = filter;
  if (![undefined, 'dead', 'blocked'].includes(state)) {
    throw new MessengerError('INVALID_OPTION', `state must be 'dead' or 'blocked', got ${describe(state)}`);
  }
  checkMessages(filter);
  for (const [name, value] of Object.entries({ since, until })) {
    if (value === undefined || (value instanceof Date && !Number.isNaN(value.getTime()))) continue;
    throw new MessengerError('INVALID_OPTION', `${name} must be a valid Date, got ${describe(value)}`);
  }
}

type MessageFilter = Pick<DeadLetterFilter, 'destination' | 'ids' | 'key' | 'topic' | 'error'>;

function checkMessages({ destination = DEFAULT_DESTINATION, ids, key, topic, error }: MessageFilter): void {
  assertDestination(destination);
  for (const [name, value] of Object.entries({ key, topic, error })) {
    if (value === undefined || (typeof (value as unknown) === 'string' && value !== '')) continue;
    throw new MessengerError('INVALID_OPTION', `${name} must be a non-empty string, got ${describe(value)}`);
  }
  checkStrings('ids', ids);
}

function checkStrings(name: string, value: unknown): void {
  if (value === undefined) return;
  const fits = Array.isArray(value) && value.every((each) => typeof each === 'string' && each !== '');
  if (fits && value.length > 0) return;
  throw new MessengerError('INVALID_OPTION', `${name} must be an array of non-empty strings, got ${describe(value)}`);
}

function checkForgetAfter(value: unknown): void {
  numberOption('forgetAfter', value, 0, { min: 60_000, max: HUNDRED_YEARS });
}

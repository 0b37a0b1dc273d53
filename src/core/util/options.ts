import { MessengerError } from '../errors.js';
import { describe } from './describe.js';

/** A day in milliseconds. It is the maximum for pauses and for most time limits. */
export const DAY = 86_400_000;

/** The range of a numeric option. */
export interface Range {
  readonly min: number;
  readonly max: number;
  readonly integer?: boolean;
}

/**
 * Checks a numeric option.
 *
 * @returns the option's value, or the default.
 * @throws MessengerError `INVALID_OPTION` that quotes the value and the range.
 */
export function numberOption(
  name: string,
  value: unknown,
  fallback: number,
  { min, max, integer = false }: Range,
): number {
  if (value === undefined) return fallback;
  const fits = typeof value === 'number' && value >= min && value <= max && (!integer || Number.isInteger(value));
  if (fits) return value;
  const kind = integer ? 'a whole number' : 'a number';
  throw new MessengerError(
    'INVALID_OPTION',
    `${name} must be ${kind} from ${String(min)} to ${String(max)}, got ${describe(value)}`,
  );
}

/**
 * Checks an option that is a whole number of 1 or more, or `Infinity` for no limit.
 *
 * @returns the option's value, or the default.
 * @throws MessengerError `INVALID_OPTION`.
 */
export function limitOption(name: string, value: unknown, fallback: number): number {
  if (value === Infinity) return Infinity;
  return numberOption(name, value, fallback, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
}

/** The names of all options in a type. A missing or additional name is a compile error. */
export type KeysOf<Options> = Readonly<Record<keyof Options, true>>;

/**
 * Checks the names of the options, so that a misspelt option is not ignored.
 *
 * @param known The names of all options: `{ interval: true } satisfies KeysOf<Options>`.
 * @param where The object that the options belong to, for error messages. Omit it if the call already makes that clear.
 * @throws MessengerError `INVALID_OPTION` if `options` is not an object, or has a key that is not in `known`.
 */
export function checkKeys(options: unknown, known: Readonly<Record<string, true>>, where?: string): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new MessengerError('INVALID_OPTION', `${where ?? 'options'} must be an object, got ${describe(options)}`);
  }
  const unknown = Object.keys(options).find((key) => !Object.hasOwn(known, key));
  if (unknown !== undefined) {
    const of = where === undefined ? '' : ` of ${where}`;
    throw new MessengerError(
      'INVALID_OPTION',
      `unknown option ${describe(unknown)}${of}; the known options are ${Object.keys(known).join(', ')}`,
    );
  }
}

/** Whether every named member of `value` is a function. */
export function hasMethods(value: unknown, ...names: readonly string[]): boolean {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
}

/** @throws MessengerError `INVALID_OPTION` if the value is neither a function nor `undefined`. */
export function checkFunction(name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw new MessengerError('INVALID_OPTION', `${name} must be a function, got ${describe(value)}`);
}

import { MessengerError } from '../errors.js';
import { describe } from './describe.js';

/** In milliseconds: the longest that a pause or a limit of time can be. */
export const DAY = 86_400_000;

/** The range of a numeric option. */
export interface Range {
  readonly min: number;
  readonly max: number;
  readonly integer?: boolean;
}

/** A numeric option, or its default. @throws MessengerError `INVALID_OPTION` quoting the value and the range. */
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

/** A whole number of 1 or more, or `Infinity` for no limit. @throws MessengerError `INVALID_OPTION`. */
export function limitOption(name: string, value: unknown, fallback: number): number {
  if (value === Infinity) return Infinity;
  return numberOption(name, value, fallback, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
}

/** Every option of a type, by name: one that is forgotten, or that is none of them, is a compile error. */
export type KeysOf<Options> = Readonly<Record<keyof Options, true>>;

/**
 * @param known The options that there are: `{ interval: true } satisfies KeysOf<Options>`.
 * @param where What they are options of, where that is not told by the call.
 * @throws MessengerError `INVALID_OPTION` for anything but an object with these keys: a misspelt option is not ignored.
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
      `unknown option ${describe(unknown)}${of}; known are ${Object.keys(known).join(', ')}`,
    );
  }
}

/** Whether every named member of `value` is a function. */
export function hasMethods(value: unknown, ...names: readonly string[]): boolean {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
}

/** @throws MessengerError `INVALID_OPTION` for anything but a function, or nothing. */
export function checkFunction(name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw new MessengerError('INVALID_OPTION', `${name} must be a function, got ${describe(value)}`);
}

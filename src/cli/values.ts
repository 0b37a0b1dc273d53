import { InvalidArgumentError } from 'commander';

/** The number of milliseconds in each unit that a duration can have. */
const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const;

/** Rejects a value that begins with `--`. If a value was forgotten, the next flag would otherwise be taken for it. */
export function nameOf(text: string): string {
  if (text.startsWith('--')) throw new InvalidArgumentError('a value is missing before this flag.');
  if (text === '') throw new InvalidArgumentError('must not be empty.');
  return text;
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('must be a whole number.');
  return value;
}

/** Returns the milliseconds in `7d`, `12h`, `30m`, `30s` or `500ms`. A number alone is in milliseconds. */
export function duration(text: string): number {
  const value = milliseconds(text);
  if (value !== undefined) return value;
  throw new InvalidArgumentError(
    'must be a duration such as 7d, 12h, 30m, 30s or 500ms; a number alone is milliseconds.',
  );
}

function milliseconds(text: string): number | undefined {
  const [, number, unit = 'ms'] = /^(\d+(?:\.\d+)?)(ms|[smhdw])?$/.exec(text) ?? [];
  if (number === undefined) return undefined;
  const value = Number(number) * UNITS[unit as keyof typeof UNITS];
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Returns the Date for a time such as `2026-01-31T12:00:00Z`, or for a duration before now such as `7d`. */
export function time(text: string): Date {
  const ago = /[a-z]$/.test(text) ? milliseconds(text) : undefined;
  const value = ago === undefined ? moment(text) : new Date(Date.now() - ago);
  if (!Number.isNaN(value.getTime())) return value;
  throw new InvalidArgumentError('must be a time such as 2026-01-31T12:00:00Z, or how long ago, such as 7d or 12h.');
}

/** Accepts only ISO 8601. `Date` would also accept `7` (as July 2001), and would turn 31 February into 3 March. */
function moment(text: string): Date {
  const [, day] =
    /^(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?$/.exec(text) ?? [];
  const date = new Date(`${day ?? ''}T00:00:00Z`);
  if (Number.isNaN(date.getTime()) || !date.toISOString().startsWith(`${String(day)}T`)) return new Date(NaN);
  return new Date(text);
}

/** Adds one value to an option that takes several. */
export function listed(value: string, values: readonly string[] = []): string[] {
  return [...values, nameOf(value)];
}

/** Returns only the flags that have these names. */
export function only<Flags extends object, Key extends keyof Flags>(
  flags: Flags,
  ...keys: readonly Key[]
): Pick<Flags, Key> {
  return Object.fromEntries(Object.entries(flags).filter(([key]) => keys.includes(key as Key))) as Pick<Flags, Key>;
}

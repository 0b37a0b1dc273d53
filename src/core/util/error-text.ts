import { toError } from '../errors.js';

/** How many levels of causes are included. The limit also ends a cycle of causes. */
const MAX_DEPTH = 5;

/** How many errors from an `AggregateError` are included. */
const MAX_ERRORS = 4;

/**
 * Describes an error in one string: its message, and the descriptions of those causes that the message does not already
 * contain. For an `AggregateError`, its errors are also included. If there are no messages at all, returns the code or
 * the name. (A refused connection to `localhost` is an `AggregateError` with a code but no message.) Passwords in
 * connection strings are masked.
 */
export function textOf(thrown: unknown): string {
  return withoutPasswords(told(thrown, 0));
}

function told(thrown: unknown, depth: number): string {
  const error = toError(thrown);
  const { message, name, code, cause, errors } = error as Error & { code?: unknown; errors?: unknown };
  // An error's message can be something other than a string, even if its type says otherwise.
  const own = typeof (message as unknown) === 'string' ? message.trim() : '';
  const within =
    depth === MAX_DEPTH ? [] : [...(Array.isArray(errors) ? (errors as unknown[]).slice(0, MAX_ERRORS) : []), cause];
  // If `thrown` is not an Error, `toError` has created an error with `thrown` as its cause. The message already
  // describes it.
  const texts = within.flatMap((each) => (each === undefined || cause === thrown ? [] : told(each, depth + 1)));
  const more = [...new Set(texts)].filter((text) => text !== '' && !own.includes(text));
  if (own !== '') return more.length === 0 ? own : `${own}: ${more.join('; ')}`;
  if (more.length > 0) return more.join('; ');
  return typeof code === 'string' || typeof code === 'number' ? String(code) : name;
}

/** Masks the password in `scheme://user:password@host`, and after `password=` in a keyword/value connection string. */
function withoutPasswords(text: string): string {
  return text
    .replace(/\b([a-z][a-z\d+.-]*:\/\/[^\s:/@]*):\S*@/gi, '$1:***@')
    .replace(/\b(password|pwd)=('[^']*'|"[^"]*"|[^\s;&]+)/gi, '$1=***');
}

/** Formats a duration as a short string, in a unit that is easy to read. */
export function durationOf(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 1) return `${String(Math.round(ms))} ms`;
  if (seconds < 9.5) return `${String(Math.round(seconds * 10) / 10)} s`;
  if (seconds < 119.5) return `${String(Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${String(minutes)} min` : `${String(Math.round(minutes / 60))} h`;
}

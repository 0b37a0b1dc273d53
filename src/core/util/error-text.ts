import { toError } from '../errors.js';

/** How deep causes are told: a cycle of them ends. */
const MAX_DEPTH = 5;

/** How many errors of an `AggregateError` are told. */
const MAX_ERRORS = 4;

/**
 * What an error says, in one text: its message, and what its causes say that the message does not. An
 * `AggregateError` is told by its errors, and an error without a message by its code: a connection to `localhost` is
 * refused with both. Passwords of connection strings are left out.
 */
export function textOf(thrown: unknown): string {
  return withoutPasswords(told(thrown, 0));
}

function told(thrown: unknown, depth: number): string {
  const error = toError(thrown);
  const { message, name, code, cause, errors } = error as Error & { code?: unknown; errors?: unknown };
  // Of whoever has set it, and types say what they may.
  const own = typeof (message as unknown) === 'string' ? message.trim() : '';
  const within =
    depth === MAX_DEPTH ? [] : [...(Array.isArray(errors) ? (errors as unknown[]).slice(0, MAX_ERRORS) : []), cause];
  // What is no error tells itself already, as the message.
  const texts = within.flatMap((each) => (each === undefined || cause === thrown ? [] : told(each, depth + 1)));
  const more = [...new Set(texts)].filter((text) => text !== '' && !own.includes(text));
  if (own !== '') return more.length === 0 ? own : `${own}: ${more.join('; ')}`;
  if (more.length > 0) return more.join('; ');
  return typeof code === 'string' || typeof code === 'number' ? String(code) : name;
}

/** `scheme://user:password@host`, and `password=…` as in a connection string of words. */
function withoutPasswords(text: string): string {
  return text
    .replace(/\b([a-z][a-z\d+.-]*:\/\/[^\s:/@]*):\S*@/gi, '$1:***@')
    .replace(/\b(password|pwd)=('[^']*'|"[^"]*"|[^\s;&]+)/gi, '$1=***');
}

/** A duration in words that are read at a glance. */
export function durationOf(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 1) return `${String(Math.round(ms))} ms`;
  if (seconds < 9.5) return `${String(Math.round(seconds * 10) / 10)} s`;
  if (seconds < 119.5) return `${String(Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${String(minutes)} min` : `${String(Math.round(minutes / 60))} h`;
}

import { textOf } from '../../../core/util/error-text.js';

/** How much of an error's text is kept with a message. */
const MAX_ERROR_LENGTH = 2_000;

/**
 * The text of an error in a form that a database with this encoding can keep. Whatever the text is, its message must be
 * settled. PostgreSQL stores no NUL, and takes no lone surrogate from JSON. If the encoding is not UTF8, it may lack
 * characters outside ASCII, so these are written as escapes of a JavaScript string (`\u2019`).
 */
export function storable(error: Error, encoding: string): string {
  const text = textOf(error)
    .slice(0, MAX_ERROR_LENGTH)
    .replaceAll('\u0000', '')
    .replace(/\p{Surrogate}/gu, '\ufffd');
  return encoding === 'UTF8' ? text : ascii(text);
}

function ascii(text: string): string {
  return text.replace(/\P{ASCII}/gu, escaped);
}

/** One or two code units. */
function escaped(character: string): string {
  return Array.from({ length: character.length }, (_, n) => character.charCodeAt(n))
    .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
    .join('');
}

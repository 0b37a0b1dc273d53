import { textOf } from '../../../core/util/error-text.js';

/** How many characters of an error message are kept with a message. */
const MAX_ERROR_LENGTH = 2_000;

/**
 * Returns an error's message in a form that a database with this encoding can store. Settling must not fail because of
 * unusual characters in an error. PostgreSQL cannot store NUL, and rejects lone surrogates in JSON. An encoding other
 * than UTF8 may lack characters outside ASCII, so these are written as JavaScript escapes (`\u2019`).
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

/** A character has one or two code units. */
function escaped(character: string): string {
  return Array.from({ length: character.length }, (_, n) => character.charCodeAt(n))
    .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
    .join('');
}

import { textOf } from '../../../core/util/error-text.js';

/** How much of an error's text is kept with a message. */
const MAX_ERROR_LENGTH = 2_000;

/**
 * The text of an error as a database of this encoding can keep it: whatever it says, its message has to be settled.
 * No text of PostgreSQL has a NUL, and none that it takes from JSON a lone surrogate. Where the encoding is not UTF8,
 * what is not ASCII may have no place in it, and is written out as in a string of JavaScript (`\u2019`).
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

/**
 * Splits a statement at its `$1`, `$2` …, for libraries that write placeholders in another way. Returns the text
 * between them, and the values in the order in which they stand there. Whatever is in quotes counts as text, because
 * names of tables may contain anything.
 */
export function splitAtPlaces(text: string, values: readonly string[]): { strings: string[]; places: string[] } {
  const strings: string[] = [];
  const places: string[] = [];
  let start = 0;
  for (const found of text.matchAll(/"[^"]*"|'[^']*'|\$(\d+)/g)) {
    const [whole, place] = found;
    if (place === undefined) continue;
    strings.push(text.slice(start, found.index));
    places.push(values[Number(place) - 1] ?? '');
    start = found.index + whole.length;
  }
  return { strings: [...strings, text.slice(start)], places };
}

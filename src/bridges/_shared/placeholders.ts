/**
 * Splits a statement at its placeholders `$1`, `$2` …, for libraries that write placeholders in another way. Returns
 * the SQL between the placeholders, and the values in the order of the placeholders. Anything in quotes is not a
 * placeholder, because table names may contain any characters.
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

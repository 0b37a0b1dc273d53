/**
 * A statement without its `$1`, `$2` …, for libraries that write them in another way: the text between them, and the
 * values in the order in which they stand there. What is within quotes is text: names of tables may hold anything.
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

/** What the package has is on a page: its names, options, error codes, events and commands. */
import { expect, it } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { commands } from './commands.js';
import { literalsOf, options, symbols } from './public-api.js';
import { pages } from './sample-runner.js';

const page = (name: string): string => pages.get(`docs/${name}.md`) ?? '';

/** What stands between backticks, and in code, on a page. */
const codeOf = (text: string): string =>
  [...text.matchAll(/```[\s\S]*?```|`[^`\n]+`/g)].map(([code]) => code).join('\n');

/** Of these names, those that a text does not have as a whole word. */
function missing(names: Iterable<string>, text: string): string[] {
  const words = new Set(text.match(/[\w$-]+/g));
  return [...new Set(names)].filter((name) => !words.has(name));
}

/** What the relay says to a store: whoever writes one reads these, and no application sets them. */
const OF_FEEDS = ['FeedOptions', 'IdleOptions', 'CloseOptions'];

/** The code in the sections of a page that name this. */
const sectionsOn = (name: string, text: string): string =>
  text
    .split(/^(?=#+ )/m)
    .filter((section) => section.includes(`\`${name}\``))
    .map(codeOf)
    .join('\n');

it('looks at every subpath of the package', () => {
  const subpaths = Object.keys(manifest.exports).filter((subpath) => subpath !== './package.json');
  expect(new Set(symbols.map(({ subpath }) => subpath.replace(manifest.name, '.')))).toEqual(new Set(subpaths));
});

it('names every public symbol on a page', () => {
  const code = codeOf([...pages].map(([name, text]) => (name.startsWith('docs/') ? text : '')).join('\n'));
  expect(
    missing(
      symbols.map(({ name }) => name),
      code,
    ),
  ).toEqual([]);
});

it('has every option on the page of options, in a section that names its interface', () => {
  const gaps = [...options].map(([name, properties]) => {
    const text = page(OF_FEEDS.includes(name) ? 'reference/write-a-store' : 'reference/options');
    return [name, missing(properties, sectionsOn(name, text))] as const;
  });
  expect(Object.fromEntries(gaps.filter(([, names]) => names.length > 0))).toEqual({});
});

it('has every error code on the page of errors', () => {
  const codes = literalsOf('ErrorCode');
  expect(codes.length).toBeGreaterThan(10);
  expect(missing(codes, codeOf(page('reference/errors')))).toEqual([]);
});

it('has every event on the page of events', () => {
  const types = literalsOf('MessengerEvent', 'type');
  expect(types.length).toBeGreaterThan(5);
  expect(missing(types, codeOf(page('reference/events')))).toEqual([]);
});

it('has every command, and every option of each, on the page of commands', () => {
  const code = codeOf(page('reference/commands'));
  expect(missing(commands.keys(), code)).toEqual([]);
  const gaps = [...commands].map(([name, flags]) => [name, missing(flags, code)] as const);
  expect(Object.fromEntries(gaps.filter(([, flags]) => flags.length > 0))).toEqual({});
});

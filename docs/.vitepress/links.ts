import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/**
 * VitePress finds links of pages to pages that do not exist. This reads what was built, and also finds links of the menus,
 * links to headings that do not exist, and pages to which nothing links.
 */
export async function checkLinks(folder: string): Promise<void> {
  const files = (await readdir(folder, { recursive: true })).map((file) => file.split(path.sep).join('/'));
  const pages = await Promise.all(
    files
      .filter((file) => file.endsWith('.html'))
      .map(async (file) => {
        const html = await readFile(path.join(folder, file), 'utf8');
        return {
          url: `/${file.replace(/((?<=^|\/)index)?\.html$/, '')}`,
          html,
          ids: new Set(matches(html, / id="([^"]+)"/g)),
        };
      }),
  );
  const known = new Map([
    ...files.map((file) => [`/${file}`, new Set<string>()] as const),
    ...pages.map(({ url, ids }) => [url, ids] as const),
  ]);
  const links = pages.flatMap(({ url, html }) =>
    matches(html, /<a\b[^>]* href="([^"]+)"/g)
      .map((href) => new URL(href, `http://site${url}`))
      .filter(({ host }) => host === 'site')
      .map(({ pathname, hash }) => ({ from: url, to: pathname, heading: decodeURIComponent(hash.slice(1)) })),
  );
  const dead = links.filter(({ to, heading }) => !(heading === '' ? known.has(to) : known.get(to)?.has(heading)));
  const linked = new Set(links.map(({ to }) => to));
  const problems = [
    ...dead.map(({ from, to, heading }) => `${from} links to ${to}${heading && `#${heading}`}, which does not exist`),
    ...pages.filter(({ url }) => !linked.has(url) && url !== '/404').map(({ url }) => `nothing links to ${url}`),
  ];
  if (problems.length > 0) throw new Error([...new Set(problems)].join('\n'));
}

function matches(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([, match = '']) => match);
}

import { defineConfig, type DefaultTheme } from 'vitepress';
import tsconfig from '../../tsconfig.json' with { type: 'json' };
import { checkLinks } from './links.js';

/** A group of pages in a folder: file name and title. */
function group(text: string, folder: string, pages: Readonly<Record<string, string>>): DefaultTheme.SidebarItem {
  return { text, items: Object.entries(pages).map(([file, title]) => ({ text: title, link: `/${folder}/${file}` })) };
}

const start = group('Start', 'start', {
  introduction: 'Introduction',
  'quick-start': 'Quick start',
  concepts: 'Concepts and glossary',
  guarantees: 'Guarantees',
});

const transactions = group('Your transaction', 'guides', {
  drizzle: 'Drizzle',
  kysely: 'Kysely',
  prisma: 'Prisma',
  knex: 'Knex',
  typeorm: 'TypeORM',
  'mikro-orm': 'MikroORM',
  sequelize: 'Sequelize',
  pg: 'pg, postgres.js, PGlite',
  'neon-supabase': 'Neon and Supabase',
});

const relays = group('Your application', 'guides', {
  servers: 'Express, Fastify, Hono',
  nest: 'NestJS',
  serverless: 'Serverless and Next.js',
  aws: 'SNS and SQS',
  inbox: 'Inbox',
  testing: 'Testing',
  destinations: 'Destinations',
  'delayed-messages': 'Delayed messages',
  retries: 'Retries and dead letters',
});

const operate = group('Operate', 'operate', {
  deploy: 'Deploy and upgrade',
  'migration-tools': 'Migration tools',
  'least-rights': 'Least rights',
  cleaning: 'Cleaning',
  watching: 'Watching',
  'several-relays': 'Several relays',
  'moved-databases': 'Moved databases',
  'poolers-and-waking': 'Poolers and waking',
});

const reference = group('Reference', 'reference', {
  options: 'Options',
  errors: 'Errors',
  events: 'Events',
  commands: 'Commands',
  tables: 'Tables',
  'write-a-store': 'Write a store',
  'write-a-publisher': 'Write a publisher',
  'write-a-bridge': 'Write a bridge',
  api: 'API',
});

/** What scripts/api-docs.ts writes. */
const api: DefaultTheme.SidebarItem = {
  text: 'API by subpath',
  collapsed: true,
  items: Object.keys(tsconfig.compilerOptions.paths).map((name) => ({ text: name, link: `/reference/api/${name}` })),
};

const more = group('More', 'more', {
  benchmarks: 'Benchmarks',
  go: 'Coming from the Go module',
  architecture: 'Architecture',
  contributing: 'Contributing',
});

export default defineConfig({
  lang: 'en',
  title: 'messenger-outbox',
  description:
    'The transactional outbox for TypeScript: store messages in your transaction, and a relay publishes them.',
  head: [['link', { rel: 'icon', href: '/logo.svg', type: 'image/svg+xml' }]],
  cleanUrls: true,
  // The index of the search is one chunk, loaded when somebody searches.
  vite: { build: { chunkSizeWarningLimit: 4_000 } },
  buildEnd: ({ outDir }) => checkLinks(outDir),
  themeConfig: {
    logo: '/logo.svg',
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Start', link: '/start/introduction', activeMatch: '^/start/' },
      { text: 'Guides', link: '/guides/drizzle', activeMatch: '^/guides/' },
      { text: 'Operate', link: '/operate/deploy', activeMatch: '^/operate/' },
      { text: 'Reference', link: '/reference/options', activeMatch: '^/reference/' },
      { text: 'More', link: '/more/benchmarks', activeMatch: '^/more/' },
    ],
    sidebar: [
      start,
      {
        text: 'Guides',
        items: [
          { ...transactions, collapsed: false },
          { ...relays, collapsed: false },
        ],
      },
      operate,
      { ...reference, items: [...(reference.items ?? []), api] },
      more,
    ],
  },
});

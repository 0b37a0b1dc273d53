import { preamble, type Database } from '../sql/database.js';
import type { ClaimOptions } from './claim.js';
import { SOURCE } from './log-statements.js';
import type { ReaderOptions } from './reader.js';
import type { Statements } from './statements.js';

/** Which messages a destination publishes, and where they are read. */
export type Source = Pick<ReaderOptions, 'topics' | 'sequence' | 'limitedAfter'>;

export async function sourceOf(
  database: Database,
  statements: Statements,
  { destination, timeout, signal }: ClaimOptions,
): Promise<Source> {
  const [row = []] = await database.transaction(
    preamble(timeout),
    (connection) => connection.query(statements.source, [destination]),
    { timeout, signal },
  );
  const { at } = SOURCE;
  const [topics, limitedAfter] = [row[at.topics], row[at.limitedAfter]] as [string | null, string | null];
  return {
    topics: topics === null ? null : (JSON.parse(topics) as string[]),
    sequence: row[at.sequence] as string,
    limitedAfter: limitedAfter === null ? Infinity : Number(limitedAfter),
  };
}

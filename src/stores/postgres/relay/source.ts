import type { Connection } from '../sql/database.js';
import { SOURCE } from './log-statements.js';
import type { ReaderOptions } from './reader.js';
import type { Statements } from './statements.js';

/** Which messages a destination publishes, and where they are read. */
export interface Source extends Pick<ReaderOptions, 'topics' | 'sequence' | 'limitedAfter'> {
  /** The encoding of the database, such as UTF8. */
  readonly encoding: string;
}

export async function sourceOf(connection: Connection, statements: Statements, destination: string): Promise<Source> {
  const [row = []] = await connection.query(statements.source, [destination]);
  const { at } = SOURCE;
  const [topics, limitedAfter] = [row[at.topics], row[at.limitedAfter]] as [string | null, string | null];
  return {
    topics: topics === null ? null : (JSON.parse(topics) as string[]),
    sequence: row[at.sequence] as string,
    limitedAfter: limitedAfter === null ? Infinity : Number(limitedAfter),
    encoding: row[at.encoding] as string,
  };
}

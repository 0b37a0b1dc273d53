import assert from 'node:assert/strict';
import type { PostgresStore } from 'messenger-outbox/postgres';

/** What a program does with the library that it is about. */
interface Uses {
  /** Stores a text in a transaction of the library, and calls `end` before its end: what that throws rolls it back. */
  readonly writes: (text: string, end: () => void) => Promise<unknown>;
  /** Stores through what is no transaction; it does not compile, where types can tell. */
  readonly mistake: () => Promise<unknown>;
}

/** Commits one message, rolls one back, makes the mistake, and looks at what is stored. */
export async function roundTrip(
  store: Pick<PostgresStore, 'migrate' | 'messages' | 'close'>,
  { writes, mistake }: Uses,
): Promise<void> {
  await store.migrate();
  await writes('grüße', () => undefined);
  const changed = writes('never', () => {
    throw new Error('the application changed its mind');
  });
  await assert.rejects(changed, /changed its mind/);
  await assert.rejects(mistake(), { code: 'INVALID_TRANSACTION' });
  const stored = await store.messages(10);
  assert.deepEqual(
    stored.map(({ payload }) => Buffer.from(payload).toString()),
    ['grüße'],
  );
  await store.close();
}

/** The database that a program is given. */
export const url = process.env['DATABASE_URL'] ?? '';

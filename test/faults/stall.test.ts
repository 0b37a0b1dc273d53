/** Transactions that are open for long, in this database and in another one of the server. */
import { expect, inject, it } from 'vitest';
import { newMessage } from '../../src/index.js';
import { newDatabase } from '../support/database.js';
import { outermostVersions } from '../support/embedded-postgres.js';
import { eventually, GRACEFUL, NOTHING, Outbox, PAGE, report } from './support.js';

it.each(outermostVersions)('does not wait for transactions that stay open (PostgreSQL %i)', async (version) => {
  const server = inject('postgres')[version];
  await Outbox.run(await newDatabase(server), {}, async (outbox) => {
    const { broker } = outbox;
    const elsewhere = await outbox.session(await newDatabase(server));
    await elsewhere.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await elsewhere.query('SELECT pg_current_xact_id()');
    const open = await outbox.session();
    await open.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await outbox.store.add(open, newMessage('late', { id: 'late', key: 'late' }));
    await open.query(`INSERT INTO ledger VALUES ('late', 'late', 1)`);

    const relay = outbox.relay('relay');
    outbox.startWriting();
    await eventually('messages arrive', () => broker.count > 10 * PAGE);
    const waits: number[] = [];
    for (let i = 0; i < 5; i++) {
      const from = performance.now();
      const ids = await outbox.write(['k2', undefined]);
      await eventually('it arrives', () => ids.every((id) => broker.has(id)));
      waits.push(Math.round(performance.now() - from));
    }
    await outbox.stopWriting();
    await outbox.drained();
    expect(broker.has('late')).toBe(false);
    await open.query('COMMIT');
    await eventually('the message of the long transaction', () => broker.has('late'));
    expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
    await elsewhere.query('ROLLBACK');
    report(`under two open transactions messages arrived within ${waits.join(', ')} ms`);
    expect(broker.duplicates()).toEqual([]);
    await eventually('the statistics of all sessions', async () => (await outbox.insertedRows()) >= broker.count - 1);
    expect(await outbox.wrong()).toEqual(NOTHING);
  });
});

import pg from 'pg';
import { startPostgres, type EmbeddedPostgres, type PostgresVersion } from '../support/embedded-postgres.js';
import { eventually } from './support.js';

/** A primary and its streaming replica, which can be put in its place. */
export class Pair {
  readonly primary: EmbeddedPostgres;
  readonly standby: EmbeddedPostgres;

  private constructor(primary: EmbeddedPostgres, standby: EmbeddedPostgres) {
    this.primary = primary;
    this.standby = standby;
  }

  /** Gives a server a replica, for which it is stopped and started. */
  static async of(version: PostgresVersion, primary: EmbeddedPostgres): Promise<Pair> {
    await primary.stop();
    const standby = await startPostgres(version, {}, { clonedFrom: primary, replicating: primary.port });
    const pair = new Pair(primary, standby);
    try {
      await primary.start();
    } catch (error) {
      await standby.remove();
      throw error;
    }
    return pair;
  }

  static async run(version: PostgresVersion, test: (pair: Pair) => Promise<void>): Promise<void> {
    const primary = await startPostgres(version);
    try {
      const pair = await Pair.of(version, primary);
      try {
        await test(pair);
      } finally {
        await pair.standby.remove();
      }
    } finally {
      await primary.remove();
    }
  }

  /** Asks the server that answers at a port. */
  async ask(port: number, text: string): Promise<unknown> {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
    await client.connect();
    try {
      const { rows } = await client.query<unknown[]>({ text, rowMode: 'array' });
      return rows[0]?.[0];
    } finally {
      await client.end();
    }
  }

  /** Resolves when the replica has all that the primary has now. */
  async caughtUp(): Promise<void> {
    const position = await this.ask(this.primary.port, 'SELECT pg_current_wal_insert_lsn()::text');
    await eventually('the replica is there', async () => {
      const reached = `SELECT coalesce(pg_last_wal_replay_lsn() >= '${String(position)}'::pg_lsn, false)`;
      return (await this.ask(this.standby.port, reached)) === true;
    });
  }

  /** The primary is gone for ever; what answers at its port is the replica, still replaying. */
  async replace(): Promise<void> {
    await this.primary.stop('immediate');
    await this.standby.stop();
    await this.standby.start(this.primary.port);
  }

  async promote(): Promise<void> {
    // Waiting in the same statement could hold up what is to be replayed before.
    await this.ask(this.standby.port, 'SELECT pg_promote(false)');
    const isOver = 'SELECT NOT pg_is_in_recovery()';
    await eventually('the promotion', async () => (await this.ask(this.standby.port, isOver)) === true);
  }

  /** The next transaction id, and the last number of the log, of the server that answers at the primary's port. */
  async counters(): Promise<{ xid: number; seq: number }> {
    const xid = await this.ask(this.primary.port, 'SELECT pg_snapshot_xmax(pg_current_snapshot())::text');
    const seq = await this.ask(this.primary.port, `SELECT pg_sequence_last_value('messenger.messages_seq_seq')::text`);
    return { xid: Number(xid), seq: Number(seq) };
  }
}

import pg from 'pg';
import { inject, onTestFinished } from 'vitest';
import { newDatabase } from '../support/database.js';

/** A pool on a new database, which ends with the test. */
export async function newPool(): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 8 });
  onTestFinished(() => pool.end());
  return pool;
}

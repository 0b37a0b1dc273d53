/** The columns of a statement, and where a decoder finds them. */
import { expect, it } from 'vitest';
import { columnsOf } from '../../../src/stores/postgres/sql/columns.js';

const row = (list: string) => list.split(', ');

it('finds each column at its place in the list, even after one was added in between', () => {
  const before = columnsOf('id', 'key');
  expect(row(before.list({ key: 'm.key', id: 'm.id' }))[before.at.key]).toBe('m.key');
  const after = columnsOf('id', 'topic', 'key');
  expect(row(after.list({ key: 'm.key', topic: 'm.topic', id: 'm.id' }))[after.at.key]).toBe('m.key');
});

it('names the columns of a subquery', () => {
  const columns = columnsOf('id', 'key');
  expect(columns.named({ id: 'm.id::text', key: 'NULL' })).toBe('m.id::text AS id, NULL AS key');
});

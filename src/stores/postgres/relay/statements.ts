import type { Names } from '../sql/names.js';
import { statement } from '../sql/statement.js';
import { leaseStatements } from './lease-statements.js';
import { logStatements } from './log-statements.js';
import { parkedStatements } from './parked-statements.js';

/** All statements that a relay runs. Their SQL is constant for one store. */
export type Statements = ReturnType<typeof statementsOf>;

export function statementsOf(names: Names, jsonPayload: boolean) {
  return {
    ...logStatements(names, jsonPayload),
    ...leaseStatements(names),
    ...parkedStatements(names, jsonPayload),
    settings: statement('settings', `SELECT name, value FROM ${names.settings}`),
  };
}

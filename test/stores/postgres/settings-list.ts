/** The settings of a session, a role or a database, with values to try. */
import type pg from 'pg';

/**
 * Values for settings that are not a number, a switch or a choice, and other values than the extremes where these would
 * stop the application itself.
 */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  datestyle: ['SQL, DMY', 'German', 'Postgres, MDY'],
  timezone: ['Asia/Kolkata', 'America/Sao_Paulo', 'UTC'],
  timezone_abbreviations: ['India', 'Australia'],
  search_path: ['nowhere', '', 'public, pg_catalog', 'pg_temp, public'],
  client_encoding: ['LATIN1', 'SQL_ASCII'],
  // Less than a transaction of the application takes would stop the application, and not us.
  statement_timeout: ['20s'],
  idle_in_transaction_session_timeout: ['20s'],
  idle_session_timeout: ['20s'],
  transaction_timeout: ['20s'],
  lock_timeout: ['1ms', '20s'],
  // A greater value makes each commit wait longer, but does not change how it waits.
  commit_delay: ['10000'],
  max_stack_depth: ['100', '1000'],
  default_tablespace: ['nowhere', 'pg_default'],
  temp_tablespaces: ['nowhere'],
  application_name: ['ü'],
  default_text_search_config: ['pg_catalog.german'],
  log_statement_sample_rate: ['1'],
  plpgsql_variable_conflict: [],
  'plpgsql.variable_conflict': ['use_variable', 'use_column'],
  'plpgsql.extra_errors': ['all'],
  'plpgsql.extra_warnings': ['all'],
};

/** Settings that do not concern a database, or cannot be set for one. */
const LEFT_OUT =
  /^(role|session_authorization|default_transaction_read_only|transaction_.*only|transaction_isolation|transaction_deferrable|is_superuser|seed)$/;

/** Each setting that can be given to a database, with values that differ from its own. */
export async function candidates(client: pg.Client): Promise<Record<string, readonly string[]>> {
  const { rows } = await client.query<{
    name: string;
    vartype: string;
    min_val: string;
    max_val: string;
    enumvals: string[] | null;
    setting: string;
  }>(
    `SELECT name, vartype, min_val, max_val, enumvals, setting FROM pg_settings WHERE context IN ('user', 'superuser') ORDER BY name`,
  );
  const found: Record<string, readonly string[]> = {};
  for (const { name, vartype, min_val, max_val, enumvals, setting } of rows) {
    if (LEFT_OUT.test(name)) continue;
    const special = VALUES[name.toLowerCase()];
    if (special) found[name] = special;
    else if (vartype === 'bool') found[name] = [setting === 'on' ? 'off' : 'on'];
    else if (vartype === 'enum') found[name] = (enumvals ?? []).filter((value) => value !== setting);
    else if (vartype === 'integer' || vartype === 'real')
      found[name] = [min_val, max_val].filter((value) => value !== setting);
    else if (!(name in found)) found[name] = [];
  }
  for (const name of Object.keys(VALUES).filter((each) => each.includes('.'))) found[name] = VALUES[name] ?? [];
  return found;
}

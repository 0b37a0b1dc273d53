import type pg from 'pg';

/** What the catalogs say about everything in the database that is not PostgreSQL's own, or about the tables of a schema. */
export async function catalog(pool: pg.Pool, schema = '%', prefix = ''): Promise<string[]> {
  const { rows } = await pool.query<{ fact: string }>(
    `
    WITH mine AS (SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND nspname LIKE $1 AND starts_with(relname, $2))
    SELECT concat_ws(' ', 'relation', nspname, relname, relkind, relpersistence, reloptions::text, pg_get_expr(relpartbound, oid)) AS fact FROM mine
    UNION ALL SELECT concat_ws(' ', 'column', relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
        coalesce(attstattarget, -1), pg_get_expr(adbin, adrelid))
      FROM mine JOIN pg_attribute a ON a.attrelid = mine.oid AND attnum > 0 LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = attnum
    UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN mine ON mine.oid = indrelid
    UNION ALL SELECT concat_ws(' ', 'constraint', relname, conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN mine ON mine.oid = conrelid
    UNION ALL SELECT concat_ws(' ', 'sequence', relname, seqcache, seqincrement, seqcycle) FROM pg_sequence JOIN mine ON mine.oid = seqrelid
    UNION ALL SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND nspname LIKE $1 AND starts_with(proname, $2)
    ORDER BY 1`,
    [schema, prefix],
  );
  return rows.map(({ fact }) => fact);
}

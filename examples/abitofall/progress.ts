import { setTimeout as sleep } from 'node:timers/promises';
import type { Pool } from 'pg';

interface Databases {
  readonly shop: Pool;
  readonly warehouse: Pool;
}

/** Prints where things stand, as often as told, and once more at the end. */
export async function reportProgress(
  databases: Databases,
  { interval, signal }: { interval: number; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    await sleep(interval, undefined, { signal }).catch(() => undefined);
    const { stored, published, received, backlog } = await count(databases);
    const entries = Object.entries({ stored, published, received, backlog });
    console.log(entries.map(([name, value]) => `${name} ${String(value)}`).join('  '));
  }
}

/** Waits until everything arrived that is stored, or for so long that nothing moved any more. */
export async function everythingArrived(
  databases: Databases,
  { patience, signal }: { patience: number; signal: AbortSignal },
): Promise<void> {
  let before = '';
  let deadline = 0;
  while (!signal.aborted) {
    const now = await count(databases);
    if (now.backlog === 0 && now.received >= now.stored) return;
    if (JSON.stringify(now) !== before) deadline = Date.now() + patience;
    if (Date.now() > deadline) {
      console.log(`nothing has arrived for ${String(patience / 1000)} seconds: the rest is not waited for`);
      return;
    }
    before = JSON.stringify(now);
    await sleep(100, undefined, { signal }).catch(() => undefined);
  }
}

async function count({ shop, warehouse }: Databases) {
  // An order is deleted by nobody; its message is cleaned away once it is published.
  const {
    rows: [orders],
  } = await shop.query<{ stored: number; backlog: number }>(
    `SELECT (SELECT count(*)::integer FROM orders) AS stored, (${BACKLOG}) AS backlog`,
  );
  const {
    rows: [arrivals],
  } = await warehouse.query<{ received: number }>(
    'SELECT count(DISTINCT message_id)::integer AS received FROM arrivals',
  );
  const { stored, backlog } = orders!;
  return { stored, backlog, published: stored - backlog, received: arrivals!.received };
}

/** What no cursor has passed, and what was parked. */
const BACKLOG = `
  SELECT count(*)::integer FROM messenger.messages m
  LEFT JOIN messenger.cursors c ON c.destination = 'default' AND c.partition = m.key_hash % 8
  LEFT JOIN messenger.parked p ON p.destination = 'default' AND p.seq = m.seq
  WHERE p.seq IS NOT NULL OR c.partition IS NULL OR NOT (
    pg_visible_in_snapshot(m.xid, c.from_snapshot)
    OR (c.to_snapshot IS NOT NULL AND pg_visible_in_snapshot(m.xid, c.to_snapshot) AND m.seq <= c.after))`;

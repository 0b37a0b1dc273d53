import { MessengerError } from '../../../core/errors.js';
import type { Row } from '../sql/database.js';
import { LEFT_OUT, MOST_READ } from '../sql/size.js';
import { sizeOf, StoredMessage } from '../sql/stored-message.js';
import { HEAD, PAGE } from './log-statements.js';

/**
 * The messages in a page, up to the first one that was too large for this read. `left` contains the sizes of that
 * message and the messages after it.
 */
export interface DecodedPage {
  /** The end of the window. */
  readonly until: string;
  /** The last number that the sequence had assigned. */
  readonly passed: number;
  readonly messages: StoredMessage[];
  readonly left: readonly number[];
}

const { at } = PAGE;

/**
 * Throws for a number that is so large that JavaScript would round it to another number. `verifySchema` rejects a
 * sequence long before that, but checks it only when a relay starts.
 */
function assertCountable(seq: number): void {
  if (Number.isSafeInteger(seq)) return;
  throw new MessengerError(
    'SCHEMA_MISMATCH',
    `the sequence of the messages is beyond ${String(Number.MAX_SAFE_INTEGER)}: somebody has set it, and JavaScript cannot tell such numbers apart`,
  );
}

export function decodePage(rows: readonly Row[]): DecodedPage {
  let until: string | undefined;
  let passed = 0;
  let standby = false;
  const messages: StoredMessage[] = [];
  let last = 0;
  let sorted = true;
  const sizes: { readonly seq: number; readonly size: number }[] = [];
  for (const row of rows) {
    if (row[at.seq] === '0') {
      until = row[at[HEAD.until]] as string;
      standby = row[at[HEAD.isStandby]] === 'true';
      passed = Number(row[at[HEAD.passed]]);
      assertCountable(passed);
      continue;
    }
    const metadata = row[at.metadata] as string;
    const left = metadata.startsWith(LEFT_OUT) ? metadata.slice(LEFT_OUT.length) : (row[at.size] as string | null);
    if (left !== null && Number(left) <= MOST_READ) {
      sizes.push({ seq: Number(row[at.seq]), size: Number(left) });
      continue;
    }
    const message = new StoredMessage(row, left);
    sorted &&= message.seq > last;
    last = message.seq;
    messages.push(message);
  }
  if (until === undefined) throw new Error('the page has no head row');
  if (standby) {
    throw new MessengerError(
      'UNSUPPORTED',
      'this server is a standby: its snapshots omit running transactions, so messages would be lost. Connect the relay to the primary',
    );
  }
  // SQL does not guarantee that a UNION keeps the order of its parts.
  if (!sorted) messages.sort((a, b) => a.seq - b.seq);
  if (sizes.length === 0) return { until, passed, messages, left: [] };
  const first = Math.min(...sizes.map(({ seq }) => seq));
  const ready = messages.filter(({ seq }) => seq < first);
  const behind = messages.slice(ready.length).map((message) => ({ seq: message.seq, size: sizeOf(message) }));
  const left = [...sizes, ...behind].sort((a, b) => a.seq - b.seq).map(({ size }) => size);
  return { until, passed, messages: ready, left };
}

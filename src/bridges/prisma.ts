/**
 * Writes through the transactions of Prisma: `new PostgresStore(pool, { bridge: prismaBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Prisma's transaction that is used, and what only a `PrismaClient` has. */
export interface PrismaTransaction {
  $executeRawUnsafe(query: string, ...values: string[]): PromiseLike<number>;
  $queryRawUnsafe(query: string, ...values: string[]): PromiseLike<unknown>;
  readonly $connect?: never;
}

/**
 * Accepts the `tx` of `prisma.$transaction(async (tx) => …)`, also of an extended client, and a nested one in versions
 * of Prisma that have them. Once the transaction has ended or timed out, Prisma itself rejects with its `P2028`.
 *
 * `prisma.$transaction([…])` needs no bridge: `store.statement` returns what `prisma.$executeRawUnsafe` accepts.
 *
 * The tx and the client of Prisma 8 are refused, because they accept no SQL text. Give Prisma 8 a client of `pg`, and
 * store through that client: `const db = postgres({ contract, pg: client })`, then `db.transaction(async () =>
 * outbox.send(client, …))`.
 *
 * Prisma does not tell of a commit, so relays are woken by notifications, or look at their interval.
 */
export function prismaBridge(): TransactionBridge<PrismaTransaction> {
  return {
    handleName: 'the tx of Prisma’s prisma.$transaction',
    isHandle: (handle) => hasMethods(handle, '$executeRawUnsafe', '$queryRawUnsafe') || isOfPrisma8(handle),
    refusalOf(transaction) {
      if (isOfPrisma8(transaction)) return PRISMA_8;
      return hasMethods(transaction, '$connect')
        ? 'a PrismaClient commits every query by itself: pass the tx that prisma.$transaction gives you'
        : undefined;
    },
    execute: (transaction, text, values) => transaction.$executeRawUnsafe(text, ...values),
    // `$executeRawUnsafe` resolves to a count.
    queryText: (transaction, text, values) => transaction.$queryRawUnsafe(text, ...values),
  };
}

const PRISMA_8 =
  'this handle comes from Prisma 8, whose transactions accept no SQL text: build Prisma on a client of pg, ' +
  'postgres({ contract, pg: client }), and pass that client inside db.transaction(async (tx) => …)';

/** The client and the tx of Prisma 8 both have these properties, and those of Prisma 7 have none of them. */
function isOfPrisma8(handle: unknown): boolean {
  return typeof handle === 'object' && handle !== null && ['sql', 'orm', 'nativeEnums'].every((name) => name in handle);
}

/**
 * Writes through the transactions of Prisma: `new PostgresStore(pool, { bridge: prismaBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The slice of Prisma's transaction that is used, and what only a `PrismaClient` has. */
export interface PrismaTransaction {
  $executeRawUnsafe(query: string, ...values: string[]): PromiseLike<number>;
  $queryRawUnsafe(query: string, ...values: string[]): PromiseLike<unknown>;
  readonly $connect?: never;
}

/**
 * Takes the `tx` of `prisma.$transaction(async (tx) => …)`, also of an extended client, and a nested one where Prisma
 * has them. Once it is over, or has timed out, Prisma itself rejects with its `P2028`.
 *
 * For `prisma.$transaction([…])` no bridge is needed: `store.statement` gives what `prisma.$executeRawUnsafe` takes.
 *
 * The tx and the client of Prisma 8 are refused: they take no SQL text. Give Prisma 8 a client of `pg`, and store through
 * that: `const db = postgres({ contract, pg: client })`, then `db.transaction(async () => outbox.send(client, …))`.
 *
 * Prisma does not tell of a commit: relays are woken by notifications, or look by their interval.
 */
export function prismaBridge(): TransactionBridge<PrismaTransaction> {
  return {
    handleName: 'the tx of Prisma’s prisma.$transaction',
    isHandle: (handle) => hasMethods(handle, '$executeRawUnsafe', '$queryRawUnsafe') || isOfPrisma8(handle),
    refusalOf(transaction) {
      if (isOfPrisma8(transaction)) return PRISMA_8;
      return hasMethods(transaction, '$connect')
        ? 'a PrismaClient commits every query by itself: pass the tx that prisma.$transaction gives'
        : undefined;
    },
    execute: (transaction, text, values) => transaction.$executeRawUnsafe(text, ...values),
    // The other one resolves to a count.
    queryText: (transaction, text, values) => transaction.$queryRawUnsafe(text, ...values),
  };
}

const PRISMA_8 =
  'this is of Prisma 8, whose transactions take no SQL text: build Prisma on a client of pg, ' +
  'postgres({ contract, pg: client }), and pass that client inside of db.transaction(async (tx) => …)';

/** Its client and its tx alike have these, and those of Prisma 7 have none of them. */
function isOfPrisma8(handle: unknown): boolean {
  return typeof handle === 'object' && handle !== null && ['sql', 'orm', 'nativeEnums'].every((name) => name in handle);
}

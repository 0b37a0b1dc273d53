/**
 * Writes through the transactions of Prisma: `new PostgresStore(pool, { bridge: prismaBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/bridge.js';
import { hasMethods } from '../core/shape.js';

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
 * Prisma does not tell of a commit: relays are woken by notifications, or look by their interval.
 */
export function prismaBridge(): TransactionBridge<PrismaTransaction> {
  return {
    takes: 'the tx of Prisma’s prisma.$transaction',
    is: (handle) => hasMethods(handle, '$executeRawUnsafe', '$queryRawUnsafe'),
    refusal: (transaction) =>
      hasMethods(transaction, '$connect')
        ? 'a PrismaClient commits every query by itself: pass the tx that prisma.$transaction gives'
        : undefined,
    run: (transaction, text, values) => transaction.$executeRawUnsafe(text, ...values),
    // The other one resolves to a count.
    query: (transaction, text, values) => transaction.$queryRawUnsafe(text, ...values),
  };
}

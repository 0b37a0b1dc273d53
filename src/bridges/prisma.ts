/**
 * Writes through the transactions of Prisma: `new PostgresStore(pool, { bridge: prismaBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Prisma's transaction that the bridge uses. Only a `PrismaClient` has `$connect`. */
export interface PrismaTransaction {
  $executeRawUnsafe(query: string, ...values: string[]): PromiseLike<number>;
  $queryRawUnsafe(query: string, ...values: string[]): PromiseLike<unknown>;
  readonly $connect?: never;
}

/**
 * Accepts the `tx` from `prisma.$transaction(async (tx) => …)`, also with an extended client, and a nested `tx` in
 * versions of Prisma that have nested transactions. Once the transaction has ended or timed out, Prisma itself rejects
 * with its error `P2028`.
 *
 * `prisma.$transaction([…])` needs no bridge: `store.statement` returns what `prisma.$executeRawUnsafe` accepts.
 *
 * The `tx` and the client of Prisma 8 are rejected, because they do not accept SQL text. Give Prisma 8 a `pg` client,
 * and store through that client: `const db = postgres({ contract, pg: client })`, then `db.transaction(async () =>
 * outbox.send(client, …))`.
 *
 * Prisma does not report commits, so notifications wake the relays, or the relays poll at their interval.
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
    // `$executeRawUnsafe` resolves to a count, not to rows.
    queryText: (transaction, text, values) => transaction.$queryRawUnsafe(text, ...values),
  };
}

const PRISMA_8 =
  'this handle comes from Prisma 8, whose transactions accept no SQL text: build Prisma on a client of pg, ' +
  'postgres({ contract, pg: client }), and pass that client inside db.transaction(async (tx) => …)';

/** In Prisma 8, the client and the `tx` both have all of these properties. In Prisma 7, they have none of them. */
function isOfPrisma8(handle: unknown): boolean {
  return typeof handle === 'object' && handle !== null && ['sql', 'orm', 'nativeEnums'].every((name) => name in handle);
}

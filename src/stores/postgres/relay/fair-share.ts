/** The relays and partitions of a destination, as one relay sees them. */
export interface Sight {
  /** The running relays, sorted by name. */
  readonly relays: readonly string[];
  readonly partitions: readonly { readonly partition: number; readonly held: boolean }[];
}

/** The partitions that a relay should give up or take. */
export interface Balance {
  /** Partitions to give up. */
  readonly give: readonly number[];
  /** How many free partitions to take. */
  readonly take: number;
}

/**
 * Computes an even share for a relay. The shares of two relays differ by at most one partition, and all relays compute
 * the same shares without asking each other. A relay that is not registered (`relay` is absent) takes every free
 * partition.
 */
export function balance({ relays, partitions }: Sight, relay: string | undefined, own: readonly number[]): Balance {
  const free = partitions.filter(({ partition, held }) => !held && !own.includes(partition)).length;
  if (relay === undefined) return { give: [], take: free };
  const place = relays.indexOf(relay);
  const members = place < 0 ? relays.length + 1 : relays.length;
  const more = (place < 0 ? relays.length : place) < partitions.length % members ? 1 : 0;
  const share = Math.floor(partitions.length / members) + more;
  return { give: own.slice(share), take: Math.min(free, Math.max(0, share - own.length)) };
}

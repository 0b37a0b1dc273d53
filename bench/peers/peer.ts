/** Another library that does a part of this one's job: messages stored in PostgreSQL, handled at least once. */
export interface Peer {
  /** The name of its package. */
  readonly name: string;
  /** Of how many messages it is given one: slow ones would make a run of hours. */
  readonly oneOf: number;
  /** Makes its tables in an empty database, and stores messages with a payload of about `bytes` bytes. */
  prepare(url: string, messages: number, bytes: number): Promise<void>;
  /**
   * Works off what was stored, with a handler that does nothing, and resolves when it has stopped.
   * `handled` is told how many messages are through, as they are.
   */
  drain(url: string, messages: number, handled: (count: number) => void): Promise<void>;
}

/** An object whose JSON text has this many bytes: all peers take JSON. */
export function jsonOf(bytes: number): { data: string } {
  return { data: 'a'.repeat(bytes - '{"data":""}'.length) };
}

/** Calls `store` for batches of up to a thousand, one after the other. */
export async function inBatches(
  messages: number,
  store: (length: number, from: number) => Promise<unknown>,
): Promise<void> {
  for (let from = 0; from < messages; from += 1000) await store(Math.min(1000, messages - from), from);
}

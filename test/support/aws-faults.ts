/** What a fault does with a command: it may change it, answer in the broker's place, or throw. */
export type Fault = (command: SentCommand, forward: () => Promise<unknown>) => Promise<unknown>;

/** A command of the SDK, as far as the tests look into it. */
export interface SentCommand {
  readonly constructor: { readonly name: string };
  readonly input: Record<string, unknown>;
}

/**
 * A client in front of a real one, for what the emulator cannot be made to do: `fault` sees every
 * command and decides. The rest of the client is the real one's.
 */
export function faulty<Client extends object>(client: Client, fault: Fault): Client {
  return new Proxy(client, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (name !== 'send') return value;
      const send = value as (command: SentCommand, options: unknown) => Promise<unknown>;
      return (command: SentCommand, options: unknown) => fault(command, () => send.call(target, command, options));
    },
  });
}

/** An error as the SDK throws it. */
export function sdkError(name: string, status?: number): Error {
  return Object.assign(new Error(`${name} by the test`), { name, $metadata: { httpStatusCode: status } });
}

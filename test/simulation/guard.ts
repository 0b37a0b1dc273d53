/** Watches that the engine takes time and chance from its clock alone. */

/** Runs `work`, and returns who in core asked the system for the time, a timer or chance meanwhile. */
export async function askedOfSystem(work: () => Promise<void>): Promise<string[]> {
  const asked: string[] = [];
  const watch = (name: string): void => {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 10;
    const { stack = '' } = new Error();
    Error.stackTraceLimit = stackTraceLimit;
    const caller = /src\/core\/[\w-]+\.[jt]s:\d+/.exec(stack);
    if (caller) asked.push(`${name} by ${caller[0]}`);
  };
  const spies = [
    spyOn(globalThis, 'setTimeout', watch),
    spyOn(globalThis, 'setInterval', watch),
    spyOn(Math, 'random', watch),
    spyOn(Date, 'now', watch),
    spyOn(performance, 'now', watch),
  ];
  try {
    await work();
  } finally {
    for (const restore of spies) restore();
  }
  return asked;
}

function spyOn(object: object, name: string, watch: (name: string) => void): () => void {
  const original = Reflect.get(object, name) as (...args: unknown[]) => unknown;
  Reflect.set(object, name, (...args: unknown[]) => {
    watch(name);
    return original.apply(object, args);
  });
  return () => {
    Reflect.set(object, name, original);
  };
}

/**
 * The few assertions that the suites use. They throw plain errors, so that they work under any test runner.
 *
 * @module
 */
import { MessengerError, type ErrorCode } from '../../core/errors.js';

/** @throws Error with the message unless the condition holds. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/**
 * @throws Error unless both values are equal as JSON, with bytes as an array of numbers. The error shows both values.
 */
export function assertEqual(actual: unknown, expected: unknown, what: string): void {
  const [is, ought] = [show(actual), show(expected)];
  if (is !== ought) throw new Error(`${what}: expected ${shorten(ought)}, got ${shorten(is)}`);
}

/** Returns a function that declares tests. Each test has its own harness, which is closed at the end of the test. */
export function testsWith<Harness extends { readonly close: () => Promise<void> }>(
  it: (name: string, test: () => Promise<void>) => unknown,
  create: () => Promise<Harness>,
): (name: string, body: (harness: Harness) => Promise<void>) => void {
  return (name, body) => {
    it(name, async () => {
      const harness = await create();
      try {
        await body(harness);
      } finally {
        await harness.close();
      }
    });
  };
}

/** Returns the error with which a promise rejects. @throws Error if it resolves. */
export async function rejection(promise: Promise<unknown>, what: string): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`${what}: expected a rejection, but it resolved`);
}

/** Asserts that a call rejects with a MessengerError that has this code, and that its message contains `names`. */
export async function refused(call: Promise<unknown>, code: ErrorCode, names = '', what: string = code): Promise<void> {
  const error = await rejection(call, what);
  assert(error instanceof MessengerError, `${what}: expected a MessengerError, got ${String(error)}`);
  assertEqual(error.code, code, `${what}: code of "${error.message}"`);
  assert(error.message.includes(names), `${what}: expected the message to name ${names}: ${error.message}`);
}

/** Polls until the condition holds. @throws Error after `deadline` milliseconds. The error contains `what`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  deadline = 15_000,
): Promise<void> {
  const end = Date.now() + deadline;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${String(deadline)} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A promise and the function that resolves it. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    opened,
    open: () => {
      open();
    },
  };
}

function show(value: unknown): string {
  // JSON cannot express undefined.
  if (value === undefined) return 'undefined';
  return JSON.stringify(value, (_, part: unknown) => (part instanceof Uint8Array ? [...part] : part));
}

function shorten(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}... (${String(text.length)} characters)` : text;
}

/** The bound of every transaction, on its own. */
import { expect, it } from 'vitest';
import { bounded } from '../../../src/stores/postgres/sql/database.js';

const never = () => new Promise<never>(() => undefined);

it('resolves to the result of the work, and leaves no timer or listener behind', async () => {
  const { signal } = new AbortController();
  expect(await bounded(Promise.resolve(1), { timeout: 60_000, signal }, 'it')).toBe(1);
  await expect(bounded(Promise.reject(new Error('no')), { timeout: 60_000, signal }, 'it')).rejects.toThrow('no');
});

it('gives up after its time', async () => {
  await expect(bounded(never(), { timeout: 1 }, 'it')).rejects.toMatchObject({
    code: 'TIMEOUT',
    message: 'it did not answer within 1 ms',
  });
});

it.each(['before', 'meanwhile'])('rejects with the reason of its signal, aborted %s', async (when) => {
  const controller = new AbortController();
  const reason = new Error('over');
  if (when === 'before') controller.abort(reason);
  const ended = bounded(never(), { timeout: 60_000, signal: controller.signal }, 'it');
  controller.abort(reason);
  await expect(ended).rejects.toBe(reason);
});

it('leaves no rejection unhandled if the work fails after it was given up', async () => {
  let fail: (error: Error) => void = () => undefined;
  const work = new Promise<never>((_, reject) => (fail = reject));
  await expect(bounded(work, { timeout: 1 }, 'it')).rejects.toMatchObject({ code: 'TIMEOUT' });
  const unhandled: unknown[] = [];
  const onUnhandled = (error: unknown) => void unhandled.push(error);
  process.on('unhandledRejection', onUnhandled);
  fail(new Error('late'));
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', onUnhandled);
  expect(unhandled).toEqual([]);
});

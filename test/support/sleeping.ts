import { onTestFinished, vi } from 'vitest';
import { PostgresFeed } from '../../src/stores/postgres/relay/feed.js';

/**
 * Until the test ends, relays of this process sleep for so many milliseconds from the first time on, as those do that
 * have been idle for long, and not for the few that they begin with.
 *
 * @returns how often any of them fell asleep
 */
export function sleepingFor(ms: number): () => number {
  // eslint-disable-next-line @typescript-eslint/unbound-method
  const { idle } = PostgresFeed.prototype;
  const slept = vi.spyOn(PostgresFeed.prototype, 'idle').mockImplementation(function (this: PostgresFeed, _, options) {
    return idle.call(this, ms, options);
  });
  onTestFinished(() => {
    slept.mockRestore();
  });
  return () => slept.mock.calls.length;
}

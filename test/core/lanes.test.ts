/** Requests that share room with the requests of other calls. */
import { describe, expect, test } from 'vitest';
import { ACKNOWLEDGED, type PublishResult } from '../../src/core/contracts/publisher.js';
import type { Clock } from '../../src/core/util/clock.js';
import { Pace } from '../../src/core/publish/pace.js';
import { Room, sendInLanes } from '../../src/core/publish/lanes.js';
import { refusal } from './scripted.js';

const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Sends items one at a time, each in its own lane, to a broker that answers when the test says so. */
function lanes(room: Room, pace?: Pace) {
  const sent: string[] = [];
  const ended: string[] = [];
  const waiting = new Map<string, (result: PublishResult) => void>();
  const send = async (name: string, ...items: readonly string[]) => {
    const results = sendInLanes(items, {
      laneOf: () => undefined,
      send: ([item]) => {
        sent.push(item!);
        return new Promise((resolve) =>
          waiting.set(item!, (result) => {
            resolve([result]);
          }),
        );
      },
      room,
      maxItems: 1,
      pace,
    });
    void results.then(() => ended.push(name));
    await tick();
    return { results };
  };
  const answer = async (item: string, result: PublishResult = ACKNOWLEDGED) => {
    waiting.get(item)!(result);
    await tick();
  };
  return { sent, ended, send, answer };
}

describe('calls that share room', () => {
  test('send no more requests at once than there is room for, and take turns', async () => {
    const { sent, send, answer } = lanes(new Room(2));
    await send('a', 'a1', 'a2', 'a3');
    await send('b', 'b1', 'b2');
    expect(sent).toEqual(['a1', 'a2']);
    await answer('a2');
    await answer('a1');
    expect(sent).toEqual(['a1', 'a2', 'a3', 'b1']);
  });

  test('end when the connection fails, even if others have all the room', async () => {
    const { sent, ended, send, answer } = lanes(new Room(2));
    await send('a', 'a1', 'a2');
    await send('c', 'c1', 'c2');
    const { results } = await send('b', 'b1', 'b2');
    await answer('a1');
    await answer('a2');
    expect(sent).toEqual(['a1', 'a2', 'c1', 'b1']);
    const down = refusal('connection', 'down');
    await answer('b1', { acknowledged: false, error: down });
    expect(ended).toEqual(['a', 'b']);
    expect(await results).toEqual([
      { acknowledged: false, error: down },
      { acknowledged: false, error: down },
    ]);
    // They leave their turn to the others.
    await answer('c1');
    await answer('c2');
    await send('d', 'd1', 'd2');
    expect(sent).toEqual(['a1', 'a2', 'c1', 'b1', 'c2', 'd1', 'd2']);
  });

  test('keep the room of a slow request until it is answered', async () => {
    let now = 0;
    let onTime: () => void = () => undefined;
    const clock: Clock = {
      now: () => now,
      setTimeout: (callback) => {
        onTime = callback;
        return () => undefined;
      },
      random: () => 0,
    };
    const { sent, ended, send, answer } = lanes(new Room(2), new Pace({ clock, timeout: 30_000 }));
    await send('a', 'slow', 'a1');
    await answer('a1');
    now = 20_000;
    onTime();
    await tick();
    expect(ended).toEqual(['a']);
    await send('b', 'b1', 'b2');
    expect(sent).toEqual(['slow', 'a1', 'b1']);
    await answer('slow');
    expect(sent).toEqual(['slow', 'a1', 'b1', 'b2']);
  });
});

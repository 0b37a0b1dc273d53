import { describe, expect, it } from 'vitest';
import { checkKeys, type KeysOf } from '../../src/core/util/options.js';

interface Options {
  readonly destination: string;
  readonly interval?: number;
  readonly signal?: AbortSignal | undefined;
}

// Checked by `tsc`: what it does not refuse here, it would not refuse where the options of a part are listed.
describe('a list of options', () => {
  it('has every option of its type, including optional ones', () => {
    const known = { destination: true, interval: true, signal: true } satisfies KeysOf<Options>;
    for (const options of [{}, { interval: 1 }, { destination: 'd', signal: undefined }]) checkKeys(options, known);
    expect(() => {
      checkKeys({ intervall: 1 }, known, 'the relay');
    }).toThrow('unknown option "intervall" of the relay; the known options are destination, interval, signal');
    // @ts-expect-error `interval` is forgotten
    const forgotten = { destination: true, signal: true } satisfies KeysOf<Options>;
    expect(() => {
      checkKeys({ interval: 1 }, forgotten);
    }).toThrow('unknown option "interval"');
  });

  it('has no option that its type does not have, and refuses unknown options', () => {
    const all = { destination: true, interval: true, signal: true } as const;
    // @ts-expect-error there is no `intervall`
    expect({ ...all, intervall: true } satisfies KeysOf<Options>).toBeDefined();
    // @ts-expect-error it is known, or it is not there
    expect({ ...all, interval: false } satisfies KeysOf<Options>).toBeDefined();
  });
});

import { MemoryStore } from '../../src/stores/memory/index.js';

/** A store that has the three methods of the contract and no feeds: what failed is in the relay's memory alone. */
export class PlainStore extends MemoryStore {
  declare readonly openFeed: never;
}
Object.defineProperty(PlainStore.prototype, 'openFeed', { value: undefined });

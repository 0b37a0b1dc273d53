/**
 * For tests of applications, under any runner: shows what their transactions store, and has a broker in memory.
 *
 * @module
 */
export { memoryBroker, outboxTesting } from './application.js';
export type { Matcher, MemoryBroker, MemoryBrokerOptions, OutboxTesting, Sent, SentOf } from './application.js';

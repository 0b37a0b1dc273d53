/**
 * For tests of applications, under any runner: what their transactions store, and a broker in memory.
 *
 * @module
 */
export { memoryBroker, outboxTesting } from './application.js';
export type { Matcher, MemoryBroker, MemoryBrokerOptions, OutboxTesting, Sent, SentOf } from './application.js';

/**
 * Helpers for an application's tests, under any test runner. They show which messages its transactions store, and
 * include an in-memory broker.
 *
 * @module
 */
export { memoryBroker, outboxTesting } from './application.js';
export type { Matcher, MemoryBroker, MemoryBrokerOptions, OutboxTesting, Sent, SentOf } from './application.js';

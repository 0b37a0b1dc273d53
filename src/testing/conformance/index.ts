/**
 * Conformance suites for your own stores and their `admin`, inboxes, publishers and subscribers, under any test runner.
 *
 * @module
 */
export { adminTestSuite } from './admin-suite.js';
export type { AdminHarness, AdminSuite } from './admin-harness.js';
export { inboxTestSuite } from './inbox-suite.js';
export type { InboxFeatures, InboxHarness, InboxSuite } from './inbox-suite.js';
export { publisherTestSuite } from './publisher-suite.js';
export type { PublisherFeatures, PublisherHarness, PublisherSuite, ReceivedMessage } from './publisher-suite.js';
export { storeTestSuite } from './store-suite.js';
export type { StoreFeatures, StoreHarness, StoreSuite, TestedStore } from './store-harness.js';
export { subscriberTestSuite } from './subscriber-suite.js';
export type { SubscriberFeatures, SubscriberHarness, SubscriberSetup, SubscriberSuite } from './subscriber-suite.js';

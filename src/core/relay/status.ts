import type { CircuitStatus } from '../publish/circuit-breaker.js';
import type { RelaySettings } from './settings.js';

/** How the datastore of a relay does. */
export interface DatastoreStatus {
  /** `failing`: it did not do what was last asked of it, and is tried again. */
  readonly state: 'working' | 'failing';
  /** Since when it has been failing. */
  readonly since?: Date;
  /** What it failed with last. */
  readonly error?: Error;
}

/** How publishing to the broker does, at this moment. */
export function circuitStatus({ circuit, calls: { waiting } }: RelaySettings): CircuitStatus {
  return { ...circuit.status, ...(waiting !== undefined && { waitingSince: before(waiting) }) };
}

/** How the datastore does, at this moment. */
export function datastoreStatus({ outages: { status: outage }, clock }: RelaySettings): DatastoreStatus {
  return outage === undefined
    ? { state: 'working' }
    : { state: 'failing', since: before(clock.now() - outage.since), error: outage.error };
}

/** A date of so many milliseconds ago: the wall clock may have been set since. */
function before(ms: number): Date {
  return new Date(Date.now() - ms);
}

import type { CircuitStatus } from '../publish/circuit-breaker.js';
import type { RelaySettings } from './settings.js';

/** The state of a relay's datastore. */
export interface DatastoreStatus {
  /** `failing`: the relay's last request to the datastore failed, and the relay tries again. */
  readonly state: 'working' | 'failing';
  /** Since when the datastore has been failing. */
  readonly since?: Date;
  /** The error with which the datastore failed last. */
  readonly error?: Error;
}

/** The state of publishing to the broker at this moment. */
export function circuitStatus({ circuit, calls: { waiting } }: RelaySettings): CircuitStatus {
  return { ...circuit.status, ...(waiting !== undefined && { waitingSince: before(waiting) }) };
}

/** The state of the datastore at this moment. */
export function datastoreStatus({ outages: { status: outage }, clock }: RelaySettings): DatastoreStatus {
  return outage === undefined
    ? { state: 'working' }
    : { state: 'failing', since: before(clock.now() - outage.since), error: outage.error };
}

/**
 * Returns the date this many milliseconds ago. It uses the present wall clock, because somebody may have set it since.
 */
function before(ms: number): Date {
  return new Date(Date.now() - ms);
}

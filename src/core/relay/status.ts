import type { CircuitStatus } from '../publish/circuit-breaker.js';
import type { RelaySettings } from './settings.js';

/** The state of a relay's datastore. */
export interface DatastoreStatus {
  /** `failing` if the relay's last request to the datastore failed, so that the relay will try again. */
  readonly state: 'working' | 'failing';
  /** When the datastore began to fail. Absent while it is working. */
  readonly since?: Date;
  /** The datastore's last error. Absent while it is working. */
  readonly error?: Error;
}

/** Returns the current state of publishing to the broker. */
export function circuitStatus({ circuit, calls: { waiting } }: RelaySettings): CircuitStatus {
  return { ...circuit.status, ...(waiting !== undefined && { waitingSince: before(waiting) }) };
}

/** Returns the current state of the datastore. */
export function datastoreStatus({ outages: { status: outage }, clock }: RelaySettings): DatastoreStatus {
  return outage === undefined
    ? { state: 'working' }
    : { state: 'failing', since: before(clock.now() - outage.since), error: outage.error };
}

/**
 * Returns the date this many milliseconds ago. It uses the current wall clock, which may have been changed since then.
 */
function before(ms: number): Date {
  return new Date(Date.now() - ms);
}

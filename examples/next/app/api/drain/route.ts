import { drainHandler } from 'messenger-outbox/serverless';
import { broker } from '../../../broker';
import { outbox } from '../../../outbox';

/** Longer than the budget: the lease is given back before the platform ends the function. */
export const maxDuration = 60;

/** For a cron job: publishes what is left. */
export const GET = drainHandler(outbox, { publisher: broker, secret: process.env['CRON_SECRET'], budget: 50_000 });

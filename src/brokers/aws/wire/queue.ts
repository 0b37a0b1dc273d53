import { MessengerError } from '../../../core/errors.js';
import { matchingText } from './options.js';

/** The parameters of GetQueueUrl. */
export interface QueueLookup {
  readonly QueueName: string;
  readonly QueueOwnerAWSAccountId?: string;
}

/** Asks SQS for the URL of a queue. */
export type GetQueueUrl = (lookup: QueueLookup, signal: AbortSignal | undefined) => Promise<string | undefined>;

/** A queue that was given as a name, a URL or an ARN. */
export interface Queue {
  /** The name, URL or ARN that was given. */
  readonly given: string;
  readonly fifo: boolean;
  /**
   * Resolves to the URL, which is looked up once, and again after a failed look-up. Rejects with the look-up's error.
   */
  url(signal?: AbortSignal): Promise<string>;
}

const ARN = /^arn:[^:]+:sqs:[^:]+:(\d+):([A-Za-z0-9_-]{1,80}(?:\.fifo)?)$/;
const NAME = /^[A-Za-z0-9_-]{1,80}(\.fifo)?$/;
const URL_FORM = /^https?:\/\/\S+$/;
const ANY_FORM = new RegExp([ARN, NAME, URL_FORM].map((form) => `(?:${form.source})`).join('|'));

/**
 * Returns a queue for a name, a URL or an ARN. For an ARN, the look-up passes the ARN's account as the owner.
 *
 * @throws MessengerError `INVALID_OPTION` for anything else.
 */
export function resolveQueue(option: unknown, getQueueUrl: GetQueueUrl): Queue {
  const given = matchingText('queue', option, ANY_FORM, 'the name, the URL or the ARN of an SQS queue');
  let known = URL_FORM.test(given) ? given : undefined;
  return {
    given,
    fifo: isFifo(given),
    async url(signal) {
      // A pending look-up is not shared, because one caller's abort, or a hanging request, must not affect another
      // caller.
      known ??= await lookUp(given, getQueueUrl, signal);
      return known;
    },
  };
}

/** Whether a topic or a queue is FIFO. Its name shows this. */
export function isFifo(nameOrArnOrUrl: string): boolean {
  return nameOrArnOrUrl.endsWith('.fifo');
}

async function lookUp(given: string, getQueueUrl: GetQueueUrl, signal: AbortSignal | undefined): Promise<string> {
  const [, account, name] = ARN.exec(given) ?? [];
  const lookup = { QueueName: name ?? given, ...(account === undefined ? {} : { QueueOwnerAWSAccountId: account }) };
  const url = await getQueueUrl(lookup, signal);
  if (url === undefined) throw new MessengerError('PUBLISH_FAILED', `SQS returned no URL for the queue ${given}`);
  return url;
}

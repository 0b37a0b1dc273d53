import { PublishError } from '../../../core/errors.js';
import { entryFailure, type FailedEntry } from './errors.js';

/** AWS's response to a batch. */
export interface BatchReply {
  readonly Successful?: readonly { readonly Id?: string | undefined }[] | undefined;
  readonly Failed?: readonly FailedEntry[] | undefined;
}

/**
 * Returns the error of each entry, or `undefined` if it succeeded. An entry in both lists, or in neither, has failed.
 */
export function readReply(ids: readonly string[], reply: BatchReply): readonly (PublishError | undefined)[] {
  const successful = new Set(reply.Successful?.map(({ Id }) => Id));
  const failures = new Map(reply.Failed?.map((failure) => [failure.Id, failure]));
  return ids.map((id) => {
    const failure = failures.get(id);
    if (failure !== undefined) return entryFailure(failure);
    if (successful.has(id)) return undefined;
    return new PublishError('the reply from AWS lists this entry neither as successful nor as failed', {
      kind: 'retryable',
    });
  });
}

import { textOf } from '../../../core/util/error-text.js';
import { PublishError, toError, type FailureKind } from '../../../core/errors.js';
import { lookUp, NETWORK_FAILURES, type FailureTable } from '../../../core/publish/failure-kinds.js';

/** The part of an AWS SDK or Node error that is read. */
interface SdkError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly $metadata?: { readonly httpStatusCode?: number | undefined } | undefined;
}

/**
 * The kind of each AWS error, keyed by its name without prefixes (`AWS.SimpleQueueService.`) and without the suffixes
 * `Exception` and `Error`. The name of the same failure depends on the service and the protocol, and on whether it is
 * the code of a batch entry. If an error is not listed, its HTTP status decides. If that does not decide either, the
 * error is retryable, because trying again loses nothing.
 *
 * Sources: "Common errors" and the error lists of SendMessageBatch and PublishBatch in the API references of SQS and
 * SNS.
 */
const KINDS: FailureTable = {
  ...NETWORK_FAILURES,

  // The message will always fail.
  InvalidParameterValue: 'permanent',
  InvalidParameter: 'permanent',
  ParameterValueInvalid: 'permanent',
  InvalidMessageContents: 'permanent',
  InvalidBatchEntryId: 'permanent',
  MessageTooLong: 'permanent',
  BatchRequestTooLong: 'permanent',
  MissingParameter: 'permanent',
  Validation: 'permanent',

  // The message failed this time, but may succeed later.
  Throttling: 'retryable',
  Throttled: 'retryable',
  RequestThrottled: 'retryable',
  TooManyRequests: 'retryable',
  RequestLimitExceeded: 'retryable',
  OverLimit: 'retryable',
  KmsThrottled: 'retryable',
  KMSThrottling: 'retryable',
  Internal: 'retryable',
  InternalFailure: 'retryable',
  ServiceUnavailable: 'retryable',

  // The queue or topic does not exist, or not at this endpoint.
  NonExistentQueue: 'connection',
  QueueDoesNotExist: 'connection',
  QueueDeletedRecently: 'connection',
  NotFound: 'connection',
  InvalidAddress: 'connection',
  UnsupportedOperation: 'connection',

  // Access is denied, or the caller is unknown.
  AccessDenied: 'connection',
  Authorization: 'connection',
  AuthFailure: 'connection',
  InvalidSecurity: 'connection',
  InvalidClientTokenId: 'connection',
  UnrecognizedClient: 'connection',
  SignatureDoesNotMatch: 'connection',
  IncompleteSignature: 'connection',
  MissingAuthenticationToken: 'connection',
  OptInRequired: 'connection',
  ExpiredToken: 'connection',
  RequestExpired: 'connection',
  CredentialsProvider: 'connection',
  TokenProvider: 'connection',
  KmsAccessDenied: 'connection',
  KMSAccessDenied: 'connection',
  KmsDisabled: 'connection',
  KMSDisabled: 'connection',
  KmsInvalidKeyUsage: 'connection',
  KmsInvalidState: 'connection',
  KMSInvalidState: 'connection',
  KmsNotFound: 'connection',
  KMSNotFound: 'connection',
  KmsOptInRequired: 'connection',
  KMSOptInRequired: 'connection',

  // There is no answer.
  Timeout: 'connection',
  RequestTimeout: 'connection',
  ECONNRESET: 'connection',
  ECONNABORTED: 'connection',
  EPIPE: 'connection',
};

/** A parameter that all messages of a publisher share. An error about it says nothing about a single message. */
const SHARED_PARAMETER = /\b(TopicArn|QueueUrl)\b/;

function kindOf(names: readonly unknown[], message: string, status: number | undefined): FailureKind {
  for (const name of names) {
    if (typeof name !== 'string') continue;
    const kind = lookUp(name, KINDS) ?? lookUp(plainName(name), KINDS);
    if (kind === 'permanent' && SHARED_PARAMETER.test(message)) return 'connection';
    if (kind !== undefined) return kind;
  }
  if (status === 401 || status === 403 || status === 404) return 'connection';
  if (status === 413) return 'permanent';
  return 'retryable';
}

function plainName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1).replace(/(Exception|Error)+$/, '');
}

/** Converts an error that the SDK threw to a `PublishError` for the relay. The SDK's error becomes the cause. */
export function requestFailure(thrown: unknown, signal?: AbortSignal): PublishError {
  const cause = toError(thrown);
  if (signal?.aborted === true) {
    return new PublishError('aborted before the broker answered, so the message may have arrived', {
      kind: 'retryable',
      cause,
    });
  }
  const error = cause as unknown as SdkError;
  const kind = kindOf([error.code, error.name], cause.message, error.$metadata?.httpStatusCode);
  return new PublishError(`${cause.name}: ${textOf(cause)}`, { kind, cause });
}

/** An entry in the `Failed` list of a batch response. */
export interface FailedEntry {
  readonly Id?: string | undefined;
  readonly Code?: string | undefined;
  readonly Message?: string | undefined;
}

/** Converts a failed entry of a batch to a `PublishError` for the relay. */
export function entryFailure(entry: FailedEntry): PublishError {
  const code = entry.Code ?? 'no code';
  const message = entry.Message ?? '';
  return new PublishError(message === '' ? code : `${code}: ${message}`, { kind: kindOf([code], message, undefined) });
}

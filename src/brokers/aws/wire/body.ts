/** A payload as a string that AWS can transmit. */
export interface EncodedBody {
  readonly body: string;
  readonly base64: boolean;
}

// ignoreBOM keeps a leading U+FEFF. fatal rejects bytes that would not come back the same.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Matches a character that SQS cannot transmit. SQS does not reject such a character, but silently replaces it with
 * U+FFFD (API reference of SendMessage, `MessageBody`), so it must never be sent.
 */
// eslint-disable-next-line no-control-regex -- tab, line feed and carriage return are among them
const REFUSED = /[^\u0009\u000a\u000d\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u;

/** Whether AWS transmits a string unchanged. */
export function isCarried(text: string): boolean {
  return text !== '' && !REFUSED.test(text);
}

/** Returns the payload itself if it is text that AWS transmits unchanged, and the payload in base64 otherwise. */
export function encodeBody(payload: Uint8Array): EncodedBody {
  const text = decodeText(payload);
  if (text !== undefined && isCarried(text)) return { body: text, base64: false };
  return { body: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('base64'), base64: true };
}

/** Returns the bytes of a body. */
export function decodeBody({ body, base64 }: EncodedBody): Uint8Array {
  // Copy the bytes out of Node's shared pool, so that a payload is a plain Uint8Array with its own memory.
  return new Uint8Array(Buffer.from(body, base64 ? 'base64' : 'utf8'));
}

/** Returns the size of a string in UTF-8, in bytes. AWS counts these bytes. */
export function byteLength(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}

function decodeText(payload: Uint8Array): string | undefined {
  try {
    return decoder.decode(payload);
  } catch {
    return undefined;
  }
}

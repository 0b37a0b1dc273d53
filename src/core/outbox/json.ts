import { MessengerError, toError } from '../errors.js';

/**
 * Describes a part of a value that JSON cannot represent, by its path and its kind. It never contains the part itself.
 */
export interface JsonFault {
  /** The path of the part, such as `items[2].price`. Empty for the value as a whole. */
  readonly path: string;
  /**
   * The kind of the part, such as `a Map`. `undefined` if JSON can represent the part, but something else has changed
   * it.
   */
  readonly kind: string | undefined;
}

/**
 * Built-in classes whose contents are lost in JSON. An object of such a class still has a JSON form if it has a
 * `toJSON` method.
 */
const WITHOUT_JSON = new Set(
  ['Map', 'Set', 'WeakMap', 'WeakSet', 'RegExp', 'Error', 'Promise', 'Arguments'].map((name) => `[object ${name}]`),
);

/**
 * `JSON.stringify` with its actual type. TypeScript's own type omits the `undefined` that it returns for a value
 * without a JSON form.
 */
const stringify: (value: unknown) => string | undefined = JSON.stringify;

/**
 * Returns a value as JSON, even if a part of the value is lost or changed: see `lostBy` and `changedBy`.
 *
 * @throws MessengerError `INVALID_MESSAGE` if the value has no JSON form. For a BigInt or a cycle, the error names the
 *   path.
 */
export function jsonOf(value: unknown, what: string): string {
  let json: string | undefined;
  try {
    json = stringify(value);
  } catch (cause) {
    throw new MessengerError('INVALID_MESSAGE', `${what} has no JSON form: ${whyNot(value, cause)}`, { cause });
  }
  if (json !== undefined) return json;
  const kind = kindWithoutJson(value);
  throw new MessengerError('INVALID_MESSAGE', `${what} has no JSON form${kind === undefined ? '' : `: it is ${kind}`}`);
}

/** Returns a clause that describes the part, such as `items[2].price is an infinite number`. */
export function faultText({ path, kind = 'changed' }: JsonFault): string {
  return `${path === '' ? 'it' : path} is ${kind}`;
}

/** Returns the first part of a value that `JSON.stringify` would silently leave out or turn into something else. */
export function lostBy(value: unknown): JsonFault | undefined {
  const fault = lost(value, []);
  return fault && { path: pathOf(fault.path), kind: fault.kind };
}

/**
 * Compares a value with `again`, which was created from the value's JSON, and returns the first part that differs.
 * Properties that are `undefined` can be absent from `again`, because JSON leaves them out. `0` and `-0` count as
 * equal.
 */
export function changedBy(value: unknown, again: unknown): JsonFault | undefined {
  const fault = changed(value, again);
  return fault && { path: pathOf(fault.path), kind: fault.kind };
}

/** A `JsonFault` whose path is still being built, starting with its last key. */
interface Found {
  readonly path: (string | number)[];
  readonly kind: string | undefined;
}

function whyNot(value: unknown, cause: unknown): string {
  if (cause instanceof RangeError) return 'it is too deeply nested or too long';
  let fault: JsonFault | undefined;
  try {
    fault = lostBy(value);
  } catch {
    // Reading the value can run code, such as a getter. That code has thrown an error again.
  }
  // The message of an error from an application's getter or toJSON can quote the payload. So only the error's name is
  // used.
  return fault ? faultText(fault) : `converting it threw ${toError(cause).name}`;
}

/**
 * Returns the kind of a value that JSON cannot represent, without looking at the value's parts. Returns `undefined` if
 * JSON can represent the value itself.
 */
function kindWithoutJson(value: unknown): string | undefined {
  switch (typeof value) {
    case 'number':
      if (Number.isNaN(value)) return 'NaN';
      return Number.isFinite(value) ? undefined : 'an infinite number';
    case 'bigint':
      return 'a BigInt';
    case 'undefined':
      return 'undefined';
    case 'function':
      return 'a function';
    case 'symbol':
      return 'a symbol';
    case 'object':
      return value === null ? undefined : kindOfObject(value);
    default:
      return undefined;
  }
}

function kindOfObject(value: object): string | undefined {
  if (Array.isArray(value)) return undefined;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return undefined;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid Date' : undefined;
  if (hasToJson(value)) return undefined;
  const name = nameOf(value);
  if (ArrayBuffer.isView(value) || WITHOUT_JSON.has(Object.prototype.toString.call(value))) return name;
  // The value is an instance of a class that does not keep its contents in properties.
  return Object.keys(value).length === 0 ? `${name} without properties` : undefined;
}

function lost(value: unknown, within: object[]): Found | undefined {
  const kind = kindWithoutJson(value);
  if (kind !== undefined) return { path: [], kind };
  if (typeof value !== 'object' || value === null) return undefined;
  if (within.includes(value)) return { path: [], kind: 'a circular reference' };
  within.push(value);
  const fault = hasToJson(value) ? lost(value.toJSON(), within) : partsLost(value, within);
  within.pop();
  return fault;
}

function partsLost(value: object, within: object[]): Found | undefined {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const fault = lost(value[i], within);
      if (fault) return at(i, fault);
    }
    return undefined;
  }
  for (const key of Object.keys(value)) {
    const part = (value as Record<string, unknown>)[key];
    // By convention, a property that is `undefined` counts as absent.
    if (part === undefined) continue;
    const fault = lost(part, within);
    if (fault) return at(key, fault);
  }
  return undefined;
}

function changed(value: unknown, again: unknown): Found | undefined {
  if (value === again) return undefined;
  const isForm = typeof value === 'object' && value !== null && hasToJson(value);
  const differs = { path: [], kind: isForm ? nameOf(value) : kindWithoutJson(value) };
  if (typeof value !== 'object' || typeof again !== 'object' || value === null || again === null) return differs;
  if (Array.isArray(value)) {
    if (!Array.isArray(again)) return differs;
    for (let i = 0; i < Math.max(value.length, again.length); i++) {
      const fault = changed(value[i], again[i]);
      if (fault) return at(i, fault);
    }
    return undefined;
  }
  // A value with a `toJSON` method counts as unchanged if the schema has created an object of the same class with the
  // same JSON.
  const isSameClass = Object.getPrototypeOf(value) === Object.getPrototypeOf(again);
  if (isForm) return isSameClass && stringify(value) === stringify(again) ? undefined : differs;
  if (differs.kind !== undefined) return isSameClass ? entriesChanged(value, again, differs) : differs;
  return partsChanged(value as Record<string, unknown>, again as Record<string, unknown>);
}

/**
 * Compares the entries of two objects that JSON cannot represent. Returns `undefined` if the schema has restored all
 * entries, or else `differs`.
 */
function entriesChanged(value: object, again: object, differs: Found): Found | undefined {
  if (!(Symbol.iterator in value && Symbol.iterator in again)) return differs;
  const fault = changed([...(value as Iterable<unknown>)], [...(again as Iterable<unknown>)]);
  return fault && differs;
}

function partsChanged(value: Record<string, unknown>, again: Record<string, unknown>): Found | undefined {
  for (const key of Object.keys(value)) {
    const fault = changed(value[key], Object.hasOwn(again, key) ? again[key] : undefined);
    if (fault)
      return at(key, fault.kind === 'undefined' && fault.path.length === 0 ? { path: [], kind: undefined } : fault);
  }
  for (const key of Object.keys(again)) {
    if (again[key] !== undefined && !Object.hasOwn(value, key)) return { path: [key], kind: undefined };
  }
  return undefined;
}

function at(key: string | number, { path, kind }: Found): Found {
  path.push(key);
  return { path, kind };
}

function hasToJson(value: object): value is { toJSON(): unknown } {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function';
}

/** Returns the name of an object's class with an article, such as `a Map` or `an Order`. */
function nameOf(value: object): string {
  const name = (value as { constructor?: { name?: unknown } }).constructor?.name;
  if (typeof name !== 'string' || name === '') return 'an object';
  return `${/^[aeio]/i.test(name) ? 'an' : 'a'} ${name}`;
}

function pathOf(keys: readonly (string | number)[]): string {
  return keys.reduceRight<string>((path, key) => {
    if (typeof key === 'number') return `${path}[${String(key)}]`;
    if (/^[A-Za-z_$][\w$]*$/.test(key)) return path === '' ? key : `${path}.${key}`;
    return `${path}[${JSON.stringify(key.length > 80 ? `${key.slice(0, 77)}...` : key)}]`;
  }, '');
}

/** One task: read an expression of a statement as a sharding key's value, exactly as PostgreSQL would convert it, or not at all. */
import { parseKey } from '../config/key-values.js';
import type { KeyType, KeyValue } from './scheme.js';
import { isLonger, literalKey } from './statement-literals.js';
import { asTree, child, list, number, strings, text, type Tree } from './statement-tree.js';
import type { KeyExpression, ParameterKey } from './statement-verdict.js';

/** Types whose equality and hash are those of the sharding key's type. `char(n)`, citext, numeric and domains are not. */
const KEY_TYPES: ReadonlyMap<string, KeyType> = new Map([
  ['int2', 'bigint'],
  ['int4', 'bigint'],
  ['int8', 'bigint'],
  ['text', 'varchar'],
  ['varchar', 'varchar'],
  ['uuid', 'uuid'],
]);

const INTEGER_LIMITS: ReadonlyMap<string, bigint> = new Map([
  ['int2', 2n ** 15n],
  ['int4', 2n ** 31n],
  ['int8', 2n ** 63n],
]);

/** The kind of sharding key that values of a type (`pg_type.typname`) can be compared with; null for every other type. */
export function keyTypeOf(typeName: string): KeyType | null {
  return KEY_TYPES.get(typeName) ?? null;
}

/** The type of a cast; null for arrays, lengths (which cut a value off) and anything that is not PostgreSQL's own. */
function castType(cast: Tree, array: boolean): string | null {
  const type = child(cast, 'typeName');
  const names = strings(type, 'names');
  const plain = names.length === 1 || (names.length === 2 && names[0] === 'pg_catalog');
  if (!plain || list(type, 'typmods').length > 0 || list(type, 'arrayBounds').length !== (array ? 1 : 0)) return null;
  return names.at(-1) ?? null;
}

/** Where a key's value comes from decides how an untyped literal or parameter is read. */
export interface KeyContext {
  readonly type: KeyType;
  /** called for each `$n` that the key is read from, so that the caller knows where else it stands */
  readonly onParameter: (parameter: number, type: KeyType) => void;
  /** whether at the end that was the parameter's only use */
  readonly inferred: (parameter: number, type: KeyType) => boolean;
  /** of the column a value is assigned to: a longer one is cut off or an error; null without a limit and for comparisons */
  readonly maxLength: number | null;
}

/** A constant or a parameter, with or without a cast; null for everything else. */
export function keyExpression(node: Tree | null, context: KeyContext): KeyExpression | null {
  const constant = child(node, 'A_Const');
  if (constant !== null) return constantKey(constant, context);
  const parameter = child(node, 'ParamRef');
  if (parameter !== null) return parameterKey(parameter, context, 'parameter', false);
  const cast = child(node, 'TypeCast');
  return cast === null ? null : castKey(cast, context);
}

function castKey(cast: Tree, context: KeyContext): KeyExpression | null {
  const typeName = castType(cast, false);
  if (typeName === null || keyTypeOf(typeName) !== context.type) return null;
  const parameter = child(child(cast, 'arg'), 'ParamRef');
  if (parameter !== null) return parameterKey(parameter, context, 'parameter', true);
  const constant = child(child(cast, 'arg'), 'A_Const');
  if (constant === null) return null;
  // 5::text is '5'; only what is read alike on both ways is read here.
  return constantKey(constant, context, INTEGER_LIMITS.get(typeName) ?? null);
}

/** @param limit of an integer type that the constant is cast to */
function constantKey(
  constant: Tree,
  { type, maxLength }: KeyContext,
  limit: bigint | null = null,
): KeyExpression | null {
  if (constant.isnull === true) return { kind: 'constant', value: null };
  const literal = literalKey(constant, type, maxLength, limit);
  if (literal !== undefined) return literal;
  const value = constantValue(constant, type);
  const tooLong = typeof value === 'string' && isLonger(value, maxLength);
  const tooLarge = limit !== null && typeof value === 'bigint' && (value < -limit || value >= limit);
  return value === null || tooLong || tooLarge ? null : { kind: 'constant', value };
}

/** An untyped literal is read by the key's input function; a number is an integer only where it is written as one. */
function constantValue(constant: Tree, type: KeyType): KeyValue | null {
  const quoted = child(constant, 'sval');
  if (quoted !== null) return parseKey(type, text(quoted, 'sval') ?? '');
  if (type !== 'bigint') return null;
  const integer = child(constant, 'ival');
  if (integer !== null) return BigInt(number(integer, 'ival'));
  // Integers beyond 32 bits arrive as text; beyond 64 bits PostgreSQL makes them numeric.
  const wide = text(child(constant, 'fval'), 'fval') ?? '';
  return /^-?\d+$/.test(wide) ? parseKey('bigint', wide) : null;
}

function parameterKey<Kind extends ParameterKey['kind']>(
  parameter: Tree,
  context: KeyContext,
  kind: Kind,
  cast: boolean,
): ParameterKey & { readonly kind: Kind } {
  const position = number(parameter, 'number');
  context.onParameter(position, context.type);
  return {
    kind,
    number: position,
    type: context.type,
    cast,
    maxLength: context.maxLength,
    // Asked when the verdict is complete: a later part of the statement may use the parameter as something else.
    get inferred() {
      return context.inferred(position, context.type);
    },
  };
}

/** The list of an `IN (…)`; null when any of it is not a key, since then PostgreSQL may compare all of them as another type. */
export function keyList(node: Tree | null, context: KeyContext): readonly KeyExpression[] | null {
  const items = list(child(node, 'List'), 'items');
  return items.length === 0 ? null : allKeys(items, context);
}

/** What stands in `= ANY (…)`: an array parameter, `ARRAY[…]`, or the text of an array; null for everything else. */
export function keyArray(node: Tree | null, context: KeyContext): readonly KeyExpression[] | null {
  const parameter = child(node, 'ParamRef');
  if (parameter !== null) return [parameterKey(parameter, context, 'array-parameter', false)];
  const array = child(node, 'A_ArrayExpr');
  if (array !== null) return allKeys(list(array, 'elements'), context);
  const cast = child(node, 'TypeCast');
  const typeName = cast === null ? null : castType(cast, true);
  if (cast === null || typeName === null || keyTypeOf(typeName) !== context.type) return null;
  const inside = child(child(cast, 'arg'), 'ParamRef');
  return inside === null ? null : [parameterKey(inside, context, 'array-parameter', true)];
}

function allKeys(items: readonly Tree[], context: KeyContext): readonly KeyExpression[] | null {
  const keys = items.map((item) => keyExpression(asTree(item), context));
  return keys.every((key) => key !== null) ? keys : null;
}
